//! Waiting for durability as a future, on whatever runtime.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Durable;
use super::completions::Ticket;
use crate::error::WaitError;
use crate::lsn::Lsn;

/// Completes once a record, and all before it, survive a power loss. From
/// [`Wal::durable`](crate::Wal::durable).
///
/// It needs no runtime of a certain kind: the log's own thread syncs, and wakes the task. Dropping
/// it before it completes ends the wait and leaves nothing behind; the record stays in the log.
#[must_use = "a future does nothing unless it is polled"]
pub struct DurableFuture<'a> {
    durable: &'a Durable,
    goal: Result<Lsn, WaitError>,
    ticket: Option<Ticket>,
}

impl<'a> DurableFuture<'a> {
    /// Waits for `durable` to reach a goal, or ends with an error that is known already.
    pub(crate) fn new(durable: &'a Durable, goal: Result<Lsn, WaitError>) -> DurableFuture<'a> {
        DurableFuture { durable, goal, ticket: None }
    }
}

impl Future for DurableFuture<'_> {
    type Output = Result<(), WaitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        match &this.goal {
            Ok(goal) => this.durable.poll_wait(*goal, &mut this.ticket, context.waker()),
            Err(error) => Poll::Ready(Err(error.clone())),
        }
    }
}

impl Drop for DurableFuture<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.durable.forget_task(ticket);
        }
    }
}

impl std::fmt::Debug for DurableFuture<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DurableFuture").field("goal", &self.goal).finish_non_exhaustive()
    }
}
