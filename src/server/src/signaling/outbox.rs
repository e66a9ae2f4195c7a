//! What waits to be sent to one socket, within bounds.

use std::sync::Arc;

use freshet_signaling::CloseCode;
use tokio::sync::Notify;

/// Messages that may wait: a full room of sixteen that all toggle something, several times over.
const MAX_ITEMS: usize = 256;

/// Bytes that may wait.
const MAX_BYTES: usize = 256 * 1024;

/// One thing to send.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A text message.
    Text(String),
    /// A ping.
    Ping,
    /// The end, after what was put in before.
    Close(CloseCode),
}

/// What waits, oldest first.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    items: Vec<Item>,
    bytes: usize,
    wake: Arc<Notify>,
}

impl Outbox {
    pub(super) fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }

    /// Puts something in; false when it is too full for that. A close always fits, and makes what waits obsolete where
    /// that was not taken in time.
    pub(super) fn push(&mut self, item: Item) -> bool {
        let size = match &item {
            Item::Text(text) => text.len(),
            Item::Ping => 0,
            Item::Close(code) => {
                if *code == CloseCode::Slow {
                    self.items.clear();
                }
                self.items.push(item);
                self.wake.notify_one();
                return true;
            }
        };
        if self.items.len() >= MAX_ITEMS || self.bytes + size > MAX_BYTES {
            return false;
        }
        self.bytes += size;
        self.items.push(item);
        self.wake.notify_one();
        true
    }

    pub(super) fn take(&mut self) -> Vec<Item> {
        self.bytes = 0;
        std::mem::take(&mut self.items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outbox_that_is_not_emptied_is_full() {
        let mut outbox = Outbox::default();
        assert_eq!((0..300).filter(|_| outbox.push(Item::Ping)).count(), MAX_ITEMS);
        assert_eq!(outbox.take().len(), MAX_ITEMS);
        let large = || Item::Text("x".repeat(100 * 1024));
        assert!(outbox.push(large()) && outbox.push(large()));
        assert!(!outbox.push(large()));
        assert!(outbox.push(Item::Close(CloseCode::Slow)));
        assert_eq!(outbox.take(), [Item::Close(CloseCode::Slow)]);
        assert!(outbox.push(large()), "what was taken counts no more");
    }

    #[test]
    fn the_end_comes_after_what_was_said_before() {
        let mut outbox = Outbox::default();
        assert!(outbox.push(Item::Text("bye".to_owned())) && outbox.push(Item::Close(CloseCode::Restart)));
        assert_eq!(outbox.take(), [Item::Text("bye".to_owned()), Item::Close(CloseCode::Restart)]);
    }
}
