//! Ctrl-C, SIGTERM and SIGHUP as something to look at between two steps, so that whoever runs cleans up in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};

use anyhow::{Result, bail};
use tokio::signal::unix::{SignalKind, signal};

/// Whether somebody wants the end.
pub struct Interrupt {
    heard: Arc<AtomicBool>,
}

impl Interrupt {
    /// From now on signals do not end the program any more.
    pub fn listen() -> Result<Interrupt> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let heard = Arc::new(AtomicBool::new(false));
        let (told, waiting): (_, Thread) = (Arc::clone(&heard), thread::current());
        let mut signals = {
            let _context = runtime.enter();
            let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
            kinds.map(signal).into_iter().collect::<std::io::Result<Vec<_>>>()?
        };
        thread::spawn(move || {
            runtime.block_on(async {
                let [interrupt, terminate, hang_up] = &mut signals[..] else { return };
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hang_up.recv() => {}
                }
                told.store(true, Ordering::SeqCst);
                waiting.unpark();
            });
            // The signals stay caught: a second Ctrl-C must not end the removal of what was made.
            thread::park();
        });
        Ok(Interrupt { heard })
    }

    /// Whether a signal came.
    pub fn heard(&self) -> bool {
        self.heard.load(Ordering::SeqCst)
    }

    /// An error as soon as a signal has come, to leave by.
    pub fn check(&self) -> Result<()> {
        if self.heard() {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Waits for a signal. Only for the thread that called [`Interrupt::listen`].
    pub fn wait(&self) {
        while !self.heard() {
            thread::park();
        }
    }
}
