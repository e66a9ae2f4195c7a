//! What of oneself is on.

use serde::Serialize;

/// What a person has told of camera, microphone and the like. [`None`]: never told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct State {
    /// The camera's picture is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub camera: Option<bool>,
    /// The microphone's sound is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub microphone: Option<bool>,
    /// The screen is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub screen: Option<bool>,
    /// The person speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speaking: Option<bool>,
    /// The person wants to speak.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hand: Option<bool>,
}

impl State {
    /// This state with what `change` tells.
    pub(crate) fn with(self, change: State) -> State {
        State {
            camera: change.camera.or(self.camera),
            microphone: change.microphone.or(self.microphone),
            screen: change.screen.or(self.screen),
            speaking: change.speaking.or(self.speaking),
            hand: change.hand.or(self.hand),
        }
    }
}
