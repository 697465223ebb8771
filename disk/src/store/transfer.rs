//! Bytes from a server into a `.part` file: several connections, each fetching pieces in order.
//!
//! A piece that fails goes back to be fetched again. While other connections work, one that
//! fails is closed and counts for nothing; it is opened again after the next piece succeeds. When
//! the last one fails, the download pauses, longer each time that no byte arrived in between.
//!
//! A server without ranges is served by one connection, and each failure starts afresh.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use reqwest::{Response, Url};
use tokio::sync::watch;

use super::{
    blocking::blocking,
    hashing::Hashing,
    http::{Answer, Failure, Fetch, shown},
    image::Progress,
    ledger::Ledger,
    partial::{Partial, Record},
    plan::{Plan, Span},
    retries::Retries,
    validator::Validator,
};
use crate::{
    digest::{BLOCK, Digest, Digests, Hasher},
    error::{Error, Flaw},
    files, space,
    units::ByteSize,
};

/// Most times that a download starts afresh because the content changed.
const MAX_RESTARTS: u32 = 3;
/// Longest time that bytes wait in memory for more to be written with them.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// Bytes of a content of unknown length between two looks at the free space.
pub(super) const SPACE_STEP: u64 = 64 << 20;

/// What a download must keep to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) max: ByteSize,
    pub(super) reserve: ByteSize,
}

/// A content that is in the file as a whole.
pub(super) struct Arrived {
    pub(super) digests: Digests,
    /// Some of it came from an earlier download.
    pub(super) resumed: bool,
}

/// One download: a URL, and the file that it goes to.
pub(super) struct Job<'a> {
    pub(super) fetch: Fetch<'a>,
    pub(super) url: &'a Url,
    pub(super) expected: &'a Digest,
    pub(super) partial: &'a Partial,
    /// The open `.part` file, held against others.
    pub(super) file: &'a Arc<File>,
    pub(super) limits: Limits,
    pub(super) progress: &'a watch::Sender<Progress>,
}

/// A download by ranges, from its first answer to its end, over all failures in between.
struct Session {
    ledger: Ledger,
    hashing: Hashing,
    resumed: bool,
}

impl Job<'_> {
    /// Fetches what is missing. The file is complete after it; nothing has been compared.
    pub(super) async fn run(&self) -> Result<Arrived, Error> {
        let mut session = self.resume().await?;
        let mut retries = Retries::default();
        let mut restarts = 0;
        let mut reached = 0;
        loop {
            let failure = match self.attempt(&mut session, &mut reached).await {
                Ok(arrived) => return Ok(arrived),
                Err(failure) => failure,
            };
            match failure {
                Failure::Fatal(error) => return Err(error),
                Failure::Changed => {
                    restarts += 1;
                    if restarts > MAX_RESTARTS {
                        return Err(Error::Changed {
                            url: shown(self.url),
                        });
                    }
                    self.forget(&mut session).await?;
                }
                Failure::Retry { error, after } => {
                    if let Some(session) = &session {
                        reached = session.ledger.state().record.plan.bytes_done();
                    }
                    retries
                        .pause(self.fetch.tuning, error, after, reached)
                        .await?;
                }
            }
        }
    }

    /// Removes everything that arrived.
    pub(super) async fn reset(&self) -> Result<(), Error> {
        let (partial, file) = (self.partial.clone(), self.file.clone());
        blocking(&self.partial.part, move || partial.reset(&file)).await
    }

    async fn forget(&self, session: &mut Option<Session>) -> Result<(), Error> {
        if let Some(session) = session.take() {
            session.ledger.close();
        }
        self.reset().await
    }

    /// What an earlier download left, if it can be continued.
    async fn resume(&self) -> Result<Option<Session>, Error> {
        let (partial, file) = (self.partial.clone(), self.file.clone());
        let record = blocking(&self.partial.part, move || Ok(partial.load(&file))).await?;
        match record {
            Some(record) if record.plan.total() <= self.limits.max.bytes() => {
                Ok(Some(self.session(record, true)))
            }
            _ => self.reset().await.map(|()| None),
        }
    }

    fn session(&self, record: Record, resumed: bool) -> Session {
        let hasher = Hasher::for_expected(Some(self.expected));
        let hashing = Hashing::start(hasher, self.file.clone());
        hashing.advance(record.plan.water_mark());
        let ledger = Ledger::new(record, self.partial.clone(), self.file.clone());
        Session {
            ledger,
            hashing,
            resumed,
        }
    }

    /// Asks, looks at what kind of answer comes, and carries on with it. `reached` is raised to
    /// how far a content without ranges came.
    async fn attempt(
        &self,
        session: &mut Option<Session>,
        reached: &mut u64,
    ) -> Result<Arrived, Failure> {
        if let Some(session) = session.take_if(|s| s.ledger.state().record.plan.is_complete()) {
            return self.complete(session).await;
        }
        let range = match session {
            Some(session) => session
                .ledger
                .state()
                .record
                .plan
                .next(&[])
                .map(|s| (s.start, s.end)),
            None => Some((0, self.fetch.tuning.piece.bytes().max(1))),
        };
        let validator = session
            .as_ref()
            .and_then(|s| self.validator(&s.ledger.state().record));
        match self.fetch.get(self.url, range, validator.as_ref()).await? {
            Answer::Part {
                response,
                total,
                validator,
            } => {
                self.admit_part(session, total, validator).await?;
                let Some(open) = session else {
                    return Err(Failure::Changed);
                };
                self.pieces(open, response).await?;
                match session.take() {
                    Some(session) => self.complete(session).await,
                    None => Err(Failure::Changed),
                }
            }
            Answer::Whole { response, length } => {
                self.forget(session).await?;
                self.whole(response, length, reached).await
            }
            Answer::Unsatisfiable | Answer::NoRanges if session.is_some() => Err(Failure::Changed),
            // It may do without ranges: what such answers say of the content is not believed.
            Answer::Unsatisfiable | Answer::NoRanges => {
                match self.fetch.get(self.url, None, None).await? {
                    Answer::Whole { response, length } => {
                        self.forget(session).await?;
                        self.whole(response, length, reached).await
                    }
                    Answer::Part { .. } | Answer::Unsatisfiable | Answer::NoRanges => {
                        let reason = "it sends a part where the whole was asked for";
                        Err(Error::Protocol {
                            url: shown(self.url),
                            reason,
                        }
                        .into())
                    }
                }
            }
        }
    }

    fn refused(&self, flaw: Flaw) -> Error {
        Error::Refused {
            image: shown(self.url),
            flaw,
        }
    }

    /// What answers from this URL must agree with. Another URL's entity tags mean nothing here.
    fn validator(&self, record: &Record) -> Option<Validator> {
        (record.url == shown(self.url)).then(|| record.validator.clone())
    }

    /// The first part of a content, or of the rest of one, is about to come.
    async fn admit_part(
        &self,
        session: &mut Option<Session>,
        total: u64,
        validator: Validator,
    ) -> Result<(), Failure> {
        if let Some(session) = session {
            let missing = {
                let mut state = session.ledger.state();
                let record = &mut state.record;
                let same = self
                    .validator(record)
                    .is_none_or(|old| old.agrees(&validator));
                if record.plan.total() != total || !same {
                    return Err(Failure::Changed);
                }
                record.url = shown(self.url);
                record.validator = validator;
                total - record.plan.bytes_done()
            };
            return Ok(self.admit(total, missing).await?);
        }
        self.admit(total, total).await?;
        let plan = Plan::new(total, self.fetch.tuning.piece.bytes());
        *session = Some(self.session(
            Record {
                url: shown(self.url),
                validator,
                plan,
            },
            false,
        ));
        Ok(())
    }

    /// Is a content of `size` bytes, `missing` of them to come, allowed and is there space?
    async fn admit(&self, size: u64, missing: u64) -> Result<(), Error> {
        let max = self.limits.max;
        if size > max.bytes() {
            let size = ByteSize::from_bytes(size);
            return Err(Error::TooLarge {
                what: shown(self.url),
                size,
                max,
            });
        }
        let dir = files::parent(&self.partial.part).to_owned();
        let reserve = self.limits.reserve;
        blocking(&self.partial.part, move || {
            space::require(&dir, missing, reserve)
        })
        .await
    }

    /// Fetches all missing pieces; `first` answers the request for the first of them.
    async fn pieces(&self, session: &Session, first: Response) -> Result<(), Failure> {
        self.report(session);
        let most = self.fetch.tuning.connections.max(1);
        let mut width = most;
        let mut busy: Vec<usize> = Vec::new();
        let mut first = Some(first);
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < width {
                let next = session.ledger.state().record.plan.next(&busy);
                let Some(span) = next else { break };
                busy.push(span.index);
                running.push(self.piece(session, span, first.take()));
            }
            let Some((index, result)) = running.next().await else {
                return Ok(());
            };
            busy.retain(|&i| i != index);
            match result {
                Ok(()) => width = (width + 1).min(most),
                Err(Failure::Retry { .. }) if !running.is_empty() => width = running.len(),
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn piece(
        &self,
        session: &Session,
        span: Span,
        first: Option<Response>,
    ) -> (usize, Result<(), Failure>) {
        (span.index, self.span(session, span, first).await)
    }

    async fn span(
        &self,
        session: &Session,
        span: Span,
        mut first: Option<Response>,
    ) -> Result<(), Failure> {
        let mut at = span.start;
        while at < span.end {
            let mut response = match first.take() {
                Some(response) => response,
                None => self.ask(session, at, span.end).await?,
            };
            let before = at;
            self.body(session, span, &mut at, &mut response).await?;
            if at == before {
                return Err(self.broke_off());
            }
        }
        Ok(())
    }

    fn broke_off(&self) -> Failure {
        let reason = "the connection ended early".to_owned();
        Failure::Retry {
            error: Error::Transfer {
                url: shown(self.url),
                reason,
            },
            after: None,
        }
    }

    /// Asks for a further part of the content.
    async fn ask(&self, session: &Session, start: u64, end: u64) -> Result<Response, Failure> {
        let (total, validator) = {
            let state = session.ledger.state();
            (state.record.plan.total(), state.record.validator.clone())
        };
        match self
            .fetch
            .get(self.url, Some((start, end)), Some(&validator))
            .await?
        {
            Answer::Part {
                response,
                total: now,
                validator: found,
            } if now == total && validator.agrees(&found) => Ok(response),
            // Other parts, no parts any more (If-Range), or a shorter content.
            Answer::Part { .. }
            | Answer::Whole { .. }
            | Answer::Unsatisfiable
            | Answer::NoRanges => Err(Failure::Changed),
        }
    }

    /// Writes one answer's bytes; what arrived before a failure counts.
    async fn body(
        &self,
        session: &Session,
        span: Span,
        at: &mut u64,
        response: &mut Response,
    ) -> Result<(), Failure> {
        let mut block = Vec::with_capacity(BLOCK);
        let mut written_at = Instant::now();
        loop {
            let next = self.fetch.chunk(response).await;
            if let Ok(Some(chunk)) = &next {
                if *at + (block.len() + chunk.len()) as u64 > span.end {
                    let reason = "it sends more bytes than were asked for";
                    return Err(Error::Protocol {
                        url: shown(self.url),
                        reason,
                    }
                    .into());
                }
                block.extend_from_slice(chunk);
            }
            let over = !matches!(next, Ok(Some(_)));
            let due = over || block.len() >= BLOCK || written_at.elapsed() > WRITE_EVERY;
            if due && !block.is_empty() {
                written_at = Instant::now();
                let n = block.len() as u64;
                block = self.write(*at, block).await?;
                *at += n;
                self.wrote(session, span.index, n).await?;
            }
            if over {
                return next.map(|_| ());
            }
        }
    }

    /// Writes a block and gives it back empty.
    async fn write(&self, at: u64, mut block: Vec<u8>) -> Result<Vec<u8>, Error> {
        let (file, path) = (self.file.clone(), self.partial.part.clone());
        blocking(&self.partial.part, move || {
            file.write_all_at(&block, at)
                .map_err(Error::io("write", &path))?;
            block.clear();
            Ok(block)
        })
        .await
    }

    async fn wrote(&self, session: &Session, index: usize, n: u64) -> Result<(), Error> {
        let mark = session.ledger.advance(index, n);
        session.hashing.advance(mark);
        self.report(session);
        session
            .ledger
            .save_after(self.fetch.tuning.save_every)
            .await
    }

    fn report(&self, session: &Session) {
        let (done, total) = {
            let plan = &session.ledger.state().record.plan;
            (plan.bytes_done(), plan.total())
        };
        self.progress.send_replace(Progress::new(done, Some(total)));
    }

    /// All pieces are there: notes that, and ends the hashing.
    async fn complete(&self, session: Session) -> Result<Arrived, Failure> {
        self.report(&session);
        let Session {
            ledger,
            hashing,
            resumed,
        } = session;
        ledger.save_after(Duration::ZERO).await?;
        let total = ledger.state().record.plan.total();
        let digests = self.digests(hashing, total).await?;
        Ok(Arrived { digests, resumed })
    }

    async fn digests(&self, hashing: Hashing, len: u64) -> Result<Digests, Error> {
        hashing
            .finish(len)
            .await
            .map_err(Error::io("read", &self.partial.part))
    }

    /// A content from a server without ranges.
    async fn whole(
        &self,
        mut response: Response,
        length: Option<u64>,
        reached: &mut u64,
    ) -> Result<Arrived, Failure> {
        if let Some(length) = length {
            self.admit(length, length).await?;
        }
        let hashing = Hashing::start(Hasher::for_expected(Some(self.expected)), self.file.clone());
        let mut at = 0;
        let mut space_at = 0;
        let mut block = Vec::with_capacity(BLOCK);
        loop {
            let next = self.fetch.chunk(&mut response).await?;
            if let Some(chunk) = &next {
                block.extend_from_slice(chunk);
            }
            if block.len() >= BLOCK || (next.is_none() && !block.is_empty()) {
                let size = at + block.len() as u64;
                if length.is_none() && (size > self.limits.max.bytes() || size > space_at) {
                    self.admit(size, SPACE_STEP).await?;
                    space_at = size + SPACE_STEP;
                }
                block = self.write(at, block).await?;
                at = size;
                *reached = at.max(*reached);
                hashing.advance(at);
                self.progress.send_replace(Progress::new(at, length));
            }
            if next.is_none() {
                break;
            }
        }
        match length {
            Some(length) if at != length => Err(self.broke_off()),
            _ if at == 0 => Err(self.refused(Flaw::Empty).into()),
            _ => Ok(Arrived {
                digests: self.digests(hashing, at).await?,
                resumed: false,
            }),
        }
    }
}
