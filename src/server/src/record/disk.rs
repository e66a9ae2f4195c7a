//! The thread that writes one recording's files: everything that may block stays here.
//!
//! Files have their final names from the beginning, are never opened over others, and are complete up to what has been
//! written last, so that nothing has to be repaired after a crash. A file that cannot be written ends; the recording
//! goes on with the next one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use freshet_bridge::record::RecordFormat;
use tokio::sync::{mpsc, oneshot};

use super::recording::{Failure, FailureKind, FileRecord, Recording};
use crate::engine::ClientSnapshot;

/// Jobs that wait for the disk, of 256 KiB of a stream in most cases. A stream that fills the queue waits, and in the
/// end loses pictures like any reader that is too slow.
const QUEUED_JOBS: usize = 8;
/// Names that are tried where there is a file of that name already.
const MAX_NAMES: u32 = 1_000;
/// Space and the file's own existence are looked at again after so many bytes.
const CHECK_BYTES: u64 = 4 * 1024 * 1024;

/// What the disk does for a recording.
#[derive(Debug)]
pub(super) enum Job {
    /// Begins a file.
    Open(Box<NewFile>),
    /// Appends to it; the file holds so much of the stream then.
    Write(Bytes, Duration),
    /// Replaces bytes of it.
    WriteAt(u64, Bytes),
    /// Ends it.
    Close,
}

/// A file that is to be.
#[derive(Debug)]
pub(super) struct NewFile {
    /// Relative to the folder, without ending.
    pub(super) stem: String,
    /// When its first frame was live.
    pub(super) started_at: SystemTime,
    /// Who publishes.
    pub(super) publisher: Option<ClientSnapshot>,
}

/// Where recordings go.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) folder: PathBuf,
    /// Writing stops where the file system has less left.
    pub(super) min_free_bytes: u64,
}

/// The way to a recording's thread. The thread ends when it is dropped.
#[derive(Debug)]
pub(super) struct Disk {
    jobs: mpsc::Sender<Job>,
}

impl Disk {
    /// Starts the thread. The receiver tells when it has ended.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(recording: Arc<Recording>, place: Place) -> io::Result<(Disk, oneshot::Receiver<()>)> {
        let (jobs, queue) = mpsc::channel(QUEUED_JOBS);
        let (ended, has_ended) = oneshot::channel();
        std::thread::Builder::new().name("freshet-record".to_owned()).spawn(move || {
            Writer { recording, place, open: None, ended: Some(ended) }.run(queue);
        })?;
        Ok((Disk { jobs }, has_ended))
    }

    /// Waits until the disk has room for another job. False: the thread is gone.
    pub(super) async fn send(&self, job: Job) -> bool {
        self.jobs.send(job).await.is_ok()
    }
}

struct Writer {
    recording: Arc<Recording>,
    place: Place,
    open: Option<Open>,
    /// Dropped when the thread ends, however that comes.
    ended: Option<oneshot::Sender<()>>,
}

struct Open {
    file: File,
    record: FileRecord,
    publisher: Option<ClientSnapshot>,
    unchecked_bytes: u64,
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(job) = queue.blocking_recv() {
            if let Err(failure) = self.do_job(job) {
                self.end_file(false);
                self.recording.note_failure(failure);
            }
        }
        self.end_file(false);
        drop(self.ended.take());
    }

    fn do_job(&mut self, job: Job) -> Result<(), Failure> {
        match job {
            Job::Open(new) => {
                self.end_file(false);
                let open = create(&self.place, &new, self.recording.format())?;
                self.recording.note_file(open.record.clone());
                self.open = Some(open);
                Ok(())
            }
            Job::Write(data, duration) => self.write(&data, duration),
            Job::WriteAt(offset, data) => {
                let Some(open) = &mut self.open else { return Ok(()) };
                open.file
                    .write_all_at(&data, offset)
                    .map_err(|e| Failure::io(FailureKind::Write, &open.record.path, &e))
            }
            Job::Close => {
                self.end_file(true);
                Ok(())
            }
        }
    }

    /// What belongs to a file that could not be opened, or has failed, is thrown away.
    fn write(&mut self, data: &[u8], duration: Duration) -> Result<(), Failure> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.unchecked_bytes += data.len() as u64;
        if open.unchecked_bytes >= CHECK_BYTES {
            open.unchecked_bytes = 0;
            check_space(&self.place)?;
            let links = open.file.metadata().map_or(0, |metadata| metadata.nlink());
            if links == 0 {
                return Err(Failure::new(
                    FailureKind::Removed,
                    format!("{} was removed while it was written", open.record.path),
                ));
            }
        }
        if let Err(error) = open.file.write_all(data) {
            let failure = Failure::io(FailureKind::Write, &open.record.path, &error);
            // Part of a packet or fragment at the end is worse than none.
            let _ = open.file.set_len(open.record.bytes);
            return Err(failure);
        }
        open.record.bytes += data.len() as u64;
        open.record.duration = duration;
        self.recording.note_progress(&open.record);
        Ok(())
    }

    /// Ends the file that is open, if one is.
    fn end_file(&mut self, is_complete: bool) {
        let Some(mut open) = self.open.take() else { return };
        open.record.is_complete = is_complete;
        open.record.is_open = false;
        let synced = open.file.sync_all();
        drop(open.file);
        if open.record.bytes == 0 {
            // A name without content only takes the place of a file.
            let _ = std::fs::remove_file(self.place.folder.join(&open.record.path));
        }
        if let Err(error) = synced {
            self.recording.note_failure(Failure::io(FailureKind::Write, &open.record.path, &error));
        }
        self.recording.note_end(&open.record, open.publisher.as_ref(), &self.place.folder);
    }
}

fn check_space(place: &Place) -> Result<(), Failure> {
    let system = rustix::fs::statvfs(&place.folder)
        .map_err(|error| Failure::io(FailureKind::Open, &place.folder.display().to_string(), &error.into()))?;
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    if free >= place.min_free_bytes {
        return Ok(());
    }
    let (free_mb, min_mb) = (free / 1_000_000, place.min_free_bytes / 1_000_000);
    let folder = place.folder.display();
    Err(Failure::new(FailureKind::Space, format!("{folder} has {free_mb} MB left, record.min_free_mb is {min_mb}")))
}

/// Opens a file under a name that nothing has.
fn create(place: &Place, new: &NewFile, format: RecordFormat) -> Result<Open, Failure> {
    let failed = |path: &Path, error: &io::Error| Failure::io(FailureKind::Open, &path.display().to_string(), error);
    let wanted = place.folder.join(&new.stem);
    let parent = wanted.parent().unwrap_or(&place.folder);
    std::fs::create_dir_all(parent).map_err(|error| failed(parent, &error))?;
    check_space(place)?;
    for number in 1..=MAX_NAMES {
        let path = match number {
            1 => format!("{}.{format}", new.stem),
            _ => format!("{}-{number}.{format}", new.stem),
        };
        let full = place.folder.join(&path);
        match OpenOptions::new().write(true).create_new(true).open(&full) {
            Ok(file) => {
                let record = FileRecord::new(path, new.started_at);
                return Ok(Open { file, record, publisher: new.publisher.clone(), unchecked_bytes: 0 });
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(&full, &error)),
        }
    }
    let message =
        format!("{MAX_NAMES} files named like {}.{format} are there already: add [timestamp] to record.path", new.stem);
    Err(Failure::new(FailureKind::Open, message))
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
