//! What the files beside the ring must hold after a crash: names of streams, positions of
//! consumers. A moment of 0: before the run.

use kaelix_wal::Lsn;
use kaelix_wal::simulation::{Moment, Stepped};

use crate::machine::{RECORD_END, SEGMENT};
use crate::oracle::NEVER;

/// Names are of many lengths, so that sectors and pages end in them.
pub fn stream_name(number: u64) -> String {
    format!("stream {number} {}", "x".repeat((number * 37 % 200) as usize))
}

/// Which streams are under version control.
pub fn is_versioned(number: u64) -> bool {
    !number.is_multiple_of(3)
}

/// Three of them take more than a sector.
pub fn consumer_name(number: usize) -> String {
    format!("consumer {number} {}", "x".repeat(200))
}

/// A stream that somebody asked for.
#[derive(Clone, Copy, Debug)]
struct Name {
    number: u64,
    begun: Moment,
    /// It was acknowledged.
    done: Moment,
    /// An open had returned that did not find it.
    gone: Moment,
}

/// All streams that were asked for, in that order.
#[derive(Clone, Debug, Default)]
pub struct Names(Vec<Name>);

impl Names {
    pub fn new(numbers: &[u64], least: usize) -> Names {
        let done = |at| if at < least { 0 } else { NEVER };
        let name = |(at, number): (usize, &u64)| Name {
            number: *number,
            begun: 0,
            done: done(at),
            gone: NEVER,
        };
        Names(numbers.iter().enumerate().map(name).collect())
    }

    /// `done` is `NEVER` for what failed.
    pub fn create(&mut self, numbers: impl Iterator<Item = u64>, begun: Moment, done: Moment) {
        self.0.extend(numbers.map(|number| Name { number, begun, done, gone: NEVER }));
    }

    /// An open had returned by `moment`, and found so many.
    pub fn reopened(&mut self, found: usize, moment: Moment) {
        for (at, name) in self.0.iter_mut().filter(|name| name.gone == NEVER).enumerate() {
            if at < found {
                name.done = name.done.min(moment);
            } else {
                name.gone = moment;
            }
        }
    }

    /// Those that there may be, and how many there must be.
    pub fn at(&self, moment: Moment) -> (Vec<u64>, usize) {
        let alive = |name: &&Name| (name.begun < moment || name.begun == 0) && moment < name.gone;
        let least = self.0.iter().filter(alive).filter(|name| name.done <= moment).count();
        (self.0.iter().filter(alive).map(|name| name.number).collect(), least)
    }
}

/// Behind a segment's last record the next segment's first one follows.
fn normalized(lsn: Lsn) -> Lsn {
    let (segment, offset) = (lsn.get() / SEGMENT, lsn.get() % SEGMENT);
    if offset < RECORD_END { lsn } else { Lsn::new((segment + 1) * SEGMENT + 64) }
}

/// What a consumer's position may be.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    least: Lsn,
    most: Lsn,
    /// It was beyond a cut, and nobody has reset it.
    is_cut: bool,
}

/// A consumer as a log must return it.
#[derive(Clone, Debug)]
pub struct ExpectedConsumer {
    number: usize,
    /// One of these.
    bounds: Vec<Bounds>,
    may_be_absent: bool,
}

impl ExpectedConsumer {
    pub fn name(&self) -> String {
        consumer_name(self.number)
    }

    /// As it was found.
    pub fn settled(&self, log: &kaelix_wal::Wal) -> Option<ExpectedConsumer> {
        let found = log.consumers().into_iter().find(|found| found.name == self.name())?;
        let (least, is_cut) = (found.position.lsn, found.cut.is_some());
        let bounds = vec![Bounds { least, most: least, is_cut }];
        Some(ExpectedConsumer { number: self.number, bounds, may_be_absent: false })
    }

    /// No position that was written is lost, none is beyond what was acknowledged, and none beyond
    /// what is in the log without being called so.
    pub fn verify(&self, log: &Stepped, retains: bool, may_cut: bool) {
        let Some(found) = log.consumers().into_iter().find(|found| found.name == self.name())
        else {
            assert!(self.may_be_absent, "{self:?} is lost");
            return;
        };
        let at = found.position.lsn;
        let fits = |bounds: &Bounds| {
            bounds.least <= at && at <= bounds.most && (found.cut.is_some() || !bounds.is_cut)
        };
        assert!(self.bounds.iter().any(fits), "{found:?} instead of {self:?}");
        let end = normalized(log.recovery_report().end);
        match found.cut {
            Some(by) => {
                let was_cut = self.bounds.iter().any(|bounds| bounds.is_cut);
                assert!(may_cut || was_cut, "beyond what is durable: {found:?}");
                assert!(by.lsn < at && by.lsn <= end, "cut at {end}: {found:?}");
            }
            None => {
                assert!(at <= end, "beyond the end at {end}, and not called cut: {found:?}");
                let trimmed = log.watermarks().trimmed;
                assert!(!retains || trimmed <= at, "released up to {trimmed}: {found:?}");
                let consumer = log.consumer(&found.name).expect("it is there");
                match consumer.reader() {
                    Ok(mut reader) => {
                        let next = reader.next().expect("what recovery kept verifies");
                        assert!(next.is_none_or(|record| record.lsn() >= at), "{found:?}");
                    }
                    Err(error) => assert!(at < trimmed, "{found:?} cannot be read: {error}"),
                }
            }
        }
    }
}

/// A consumer from when it was made, or reset, to the next time.
#[derive(Clone, Debug)]
struct Life {
    number: usize,
    begun: Moment,
    done: Moment,
    /// Somebody began to end it,
    ending: Moment,
    /// and had.
    gone: Moment,
    is_cut: bool,
    /// Whoever opened the log had been told so by this moment.
    told: Moment,
    /// (Moment, position): from then on at least, and from then on perhaps.
    least: Vec<(Moment, Lsn)>,
    most: Vec<(Moment, Lsn)>,
}

/// The consumers of a machine.
#[derive(Clone, Debug, Default)]
pub struct Consumers(Vec<Life>);

impl Consumers {
    pub fn new(expected: &[ExpectedConsumer]) -> Consumers {
        let mut consumers = Consumers::default();
        for consumer in expected {
            let is_certain = consumer.bounds.len() == 1 && !consumer.may_be_absent;
            for bounds in &consumer.bounds {
                let done = if is_certain { 0 } else { NEVER };
                let Bounds { least, most, is_cut } = *bounds;
                consumers.begin(consumer.number, 0, done, (least, most), is_cut);
            }
        }
        consumers
    }

    fn begin(
        &mut self,
        number: usize,
        begun: Moment,
        done: Moment,
        (least, most): (Lsn, Lsn),
        is_cut: bool,
    ) {
        let (least, most) = (vec![(begun, least)], vec![(begun, most)]);
        let (ending, gone) = (NEVER, NEVER);
        self.0.push(Life { number, begun, done, ending, gone, is_cut, told: 0, least, most });
    }

    /// Made, or reset, at `at`, with `bound` as the most that may be written of it. `done` is
    /// `NEVER` if that failed.
    pub fn place(&mut self, number: usize, (begun, done): (Moment, Moment), at: Lsn, bound: Lsn) {
        for life in self.alive(number) {
            life.gone = done;
        }
        self.begin(number, begun, done, (at.min(bound), at), false);
    }

    /// Removed, or that failed.
    pub fn end(&mut self, number: usize, begun: Moment, done: Moment) {
        for life in self.alive(number) {
            (life.ending, life.gone) = (life.ending.min(begun), done);
        }
    }

    fn alive(&mut self, number: usize) -> impl Iterator<Item = &mut Life> {
        self.0.iter_mut().filter(move |life| life.number == number && life.gone == NEVER)
    }

    /// The open that found these had returned by `moment`: a crash in it may cut elsewhere.
    pub fn settled(&mut self, moment: Moment) {
        self.0.iter_mut().for_each(|life| life.told = moment);
    }

    /// Acknowledged up to `lsn`, from `begun` on.
    pub fn ack(&mut self, number: usize, begun: Moment, lsn: Lsn) {
        for life in self.alive(number) {
            life.most.push((begun, lsn));
        }
    }

    /// By `moment` all positions had been written, as far as they were at or below `bound`.
    pub fn written(&mut self, moment: Moment, bound: Lsn) {
        for life in self.0.iter_mut().filter(|life| life.gone == NEVER && !life.is_cut) {
            if let Some((_, acked)) = life.most.last() {
                life.least.push((moment, bound.min(*acked)));
            }
        }
    }

    /// An open had returned by `moment`; what it has found is written.
    pub fn reopened(&mut self, log: &Stepped, moment: Moment) {
        let begun = moment.saturating_sub(1);
        for life in self.0.iter_mut().filter(|life| life.gone == NEVER) {
            life.gone = moment;
        }
        for found in log.consumers() {
            let number = (0..).find(|number| consumer_name(*number) == found.name);
            let (at, is_cut) = (found.position.lsn, found.cut.is_some());
            self.begin(number.expect("found"), begun, moment, (at, at), is_cut);
        }
    }

    pub fn at(&self, moment: Moment) -> Vec<ExpectedConsumer> {
        let mut expected: Vec<ExpectedConsumer> = Vec::new();
        let alive = |life: &&Life| (life.begun < moment || life.begun == 0) && moment < life.gone;
        for life in self.0.iter().filter(alive) {
            let is_certain = life.done <= moment && moment <= life.ending;
            let since = |values: &[(Moment, Lsn)], is_in: &dyn Fn(Moment) -> bool| {
                let values = values.iter().filter(|(at, _)| is_in(*at)).map(|(_, lsn)| *lsn);
                values.max().unwrap_or(Lsn::ZERO)
            };
            let least = since(&life.least, &|at| at <= moment);
            let most = since(&life.most, &|at| at < moment || at == life.begun);
            let bounds = Bounds { least, most, is_cut: life.is_cut && life.told <= moment };
            match expected.iter_mut().find(|consumer| consumer.number == life.number) {
                Some(consumer) => {
                    consumer.bounds.push(bounds);
                    consumer.may_be_absent &= !is_certain;
                }
                None => expected.push(ExpectedConsumer {
                    number: life.number,
                    bounds: vec![bounds],
                    may_be_absent: !is_certain,
                }),
            }
        }
        expected
    }
}
