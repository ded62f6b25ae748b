//! Reboots a node, and waits until it is back. What it came back with is for the next look to say.

use std::time::{Duration, Instant};

use super::{Node, NodeError};
use crate::model::observed::BootId;
use crate::model::store_path::StorePath;

/// Between two knocks at a node that boots.
const KNOCK: Duration = Duration::from_secs(2);
/// Longest time for one of them.
const LOOK: Duration = Duration::from_secs(10);

/// What became of a node that was told to reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebooted {
    /// It answers, and has booted since.
    Back,
    /// It did not within its time.
    NotBack,
}

impl Node {
    /// Ends the boot `boot`, so that the next one brings `toplevel`, and waits so long for the node. Told once: an order that
    /// was perhaps heard is not repeated.
    pub async fn reboot_into(
        &self,
        boot: &BootId,
        toplevel: &StorePath,
        within: Duration,
    ) -> Result<Rebooted, NodeError> {
        match self.reboot(boot, Some(toplevel)).await {
            // What it was about to say went with its network.
            Err(error) if !error.is_connection() => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let began = Instant::now();
        while began.elapsed() < within {
            tokio::time::sleep(KNOCK).await;
            match self.look(LOOK).await.outcome {
                Ok(state) if state.boot_id != *boot => return Ok(Rebooted::Back),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(Rebooted::NotBack)
    }
}
