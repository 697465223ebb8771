//! Pulling an image: from a URL and a digest to a file of the store.

use std::{
    fs::File,
    path::Path,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use reqwest::Url;
use tokio::sync::watch;

use super::{
    blocking::blocking,
    http::{Answer, Failure, Fetch, Trust, parse_url, shown},
    image::{Progress, StoredImage},
    images::ImageStore,
    partial::Partial,
    retries::Retries,
    transfer::{Arrived, Job, Limits},
    unpack::{Packed, Packing, Stop},
};
use crate::{
    digest::Digest,
    error::{Error, Flaw},
    format::Format,
    sums,
};

/// How often a download asks whether a cancelled one has let go of the file.
const HELD_POLL: Duration = Duration::from_millis(20);

/// An image to download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRequest {
    /// Where it is: `https`, or `http` (its digest vouches for it). User names and passwords are
    /// refused.
    pub url: String,
    /// What it must be.
    pub expected: Expected,
    /// The format it was announced with, if any; another one is refused.
    pub format: Option<Format>,
}

/// Where the digest of a download comes from. There is no download without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// The caller knows it.
    Digest(Digest),
    /// A list that the publisher serves (see [`crate::sums`]), over `https` or from this machine.
    Sums {
        /// The list's URL.
        url: String,
        /// The image's name in the list; `None`: the last part of the image's URL, or what its
        /// query names.
        name: Option<String>,
    },
}

impl ImageStore {
    /// Downloads an image into the store, or finds that it is there, with the right content.
    ///
    /// A compressed image (gzip, xz, bzip2, zstd) is unpacked, after the digest, which is that of the
    /// compressed file, was compared. Digests are checked while bytes arrive; what arrived is kept when the download fails,
    /// is interrupted or cancelled, and the next pull of the same digest continues. Pulls of one
    /// image at the same time are one download. `progress` is called as it proceeds.
    ///
    /// Cancel-safe: dropping the future stops the download, unless another caller waits for it.
    /// Must be called in a Tokio runtime with time and I/O enabled.
    ///
    /// # Errors
    /// [`Error::Url`], [`Error::Sums`], [`Error::GaveUp`], [`Error::Refused`], [`Error::DigestMismatch`]
    /// and others about the server, the content or the file system. No image is stored then.
    pub async fn pull(
        &self,
        request: &PullRequest,
        progress: impl Fn(Progress),
    ) -> Result<StoredImage, Error> {
        let url = parse_url(&request.url, Trust::ByDigest)?;
        let expected = match &request.expected {
            Expected::Digest(digest) => *digest,
            Expected::Sums { url: list, name } => {
                let names = match name {
                    Some(name) => vec![name.clone()],
                    None => file_names(&url),
                };
                self.listed_digest(list, &names).await?
            }
        };
        if let Some(image) = self.existing(expected, request.format).await? {
            progress(Progress::new(
                image.info.file_size.bytes(),
                Some(image.info.file_size.bytes()),
            ));
            return Ok(image);
        }
        let shown = shown(&url);
        let flight = self
            .inner
            .flights
            .join((expected, request.format), |sender| {
                let (store, format) = (self.clone(), request.format);
                async move { store.download(url, expected, format, sender).await }
            });
        flight.wait(&shown, progress).await
    }

    /// The digest that the list at `url` gives for the first of `names` that it knows.
    async fn listed_digest(&self, url: &str, names: &[String]) -> Result<Digest, Error> {
        let url = parse_url(url, Trust::ByTransport)?;
        let mut retries = Retries::default();
        let list = loop {
            match self.fetch_list(&url).await {
                Ok(list) => break list,
                Err(Failure::Fatal(error)) => return Err(error),
                Err(Failure::Retry { error, after }) => {
                    retries
                        .pause(&self.inner.options.tuning, error, after, 0)
                        .await?;
                }
                Err(Failure::Changed) => return Err(Error::Changed { url: shown(&url) }),
            }
        };
        let mut first = None;
        for name in names {
            match sums::find(&list, name) {
                Ok(digest) => return Ok(digest),
                Err(reason) => first = first.or(Some(reason)),
            }
        }
        let name = String::new();
        Err(Error::Sums {
            url: shown(&url),
            reason: first.unwrap_or(sums::SumsError::NotListed { name }),
        })
    }

    async fn fetch_list(&self, url: &Url) -> Result<Vec<u8>, Failure> {
        let fetch = self.fetch(Trust::ByTransport);
        let Answer::Whole { mut response, .. } = fetch.get(url, None, None).await? else {
            let reason = "it sends a part where the whole was asked for";
            return Err(Error::Protocol {
                url: shown(url),
                reason,
            }
            .into());
        };
        let mut list = Vec::new();
        while let Some(chunk) = fetch.chunk(&mut response).await? {
            if list.len() + chunk.len() > sums::MAX_SUMS_LEN {
                let reason = sums::SumsError::TooLong;
                return Err(Error::Sums {
                    url: shown(url),
                    reason,
                }
                .into());
            }
            list.extend_from_slice(&chunk);
        }
        Ok(list)
    }

    fn fetch(&self, trust: Trust) -> Fetch<'_> {
        Fetch {
            clients: &self.inner.clients,
            tuning: &self.inner.options.tuning,
            trust,
        }
    }

    /// The image, if the store has it, undamaged, and it is what was announced. Reads all of it.
    async fn existing(
        &self,
        expected: Digest,
        format: Option<Format>,
    ) -> Result<Option<StoredImage>, Error> {
        let store = self.clone();
        let image = blocking(self.root(), move || match store.resolve(&expected)? {
            Some(digest) if store.is_sound(&digest)? => store.get(&expected),
            _ => Ok(None),
        })
        .await?;
        match (image, format) {
            (Some(image), Some(expected)) if image.info.format != expected => {
                let found = image.info.format;
                let flaw = Flaw::WrongFormat { expected, found };
                Err(Error::Refused {
                    image: image.path.display().to_string(),
                    flaw,
                })
            }
            (image, _) => Ok(image),
        }
    }

    /// The one download of `expected`; runs in a task of its own.
    async fn download(
        self,
        url: Url,
        expected: Digest,
        format: Option<Format>,
        progress: watch::Sender<Progress>,
    ) -> Result<StoredImage, Error> {
        let partial = Partial::of(&self.tmp(), &expected);
        let file = loop {
            // Who held the file may have finished the image.
            if let Some(image) = self.existing(expected, format).await? {
                return Ok(image);
            }
            let candidate = partial.clone();
            match blocking(&partial.part, move || candidate.open()).await? {
                Some(file) => break Arc::new(file),
                None => tokio::time::sleep(HELD_POLL).await,
            }
        };
        let job = Job {
            fetch: self.fetch(Trust::ByDigest),
            url: &url,
            expected: &expected,
            partial: &partial,
            file: &file,
            limits: self.limits(),
            progress: &progress,
        };
        let name = shown(&url);
        let mut arrived = job.run().await?;
        // Old bytes may be another version's that no server told apart from this one.
        if arrived.resumed && arrived.digests.mismatch(&expected).is_some() {
            job.reset().await?;
            arrived = job.run().await?;
        }
        let (store, partial) = (self.clone(), partial.clone());
        let stop = Stop::default();
        let stopped = stop.flag();
        blocking(&partial.part.clone(), move || {
            let found = Found {
                partial: &partial,
                file: &file,
                arrived: &arrived,
                expected: &expected,
                name: Path::new(&name),
            };
            store.keep(&found, format, &stopped)
        })
        .await
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            max: self.inner.options.max_image_size,
            reserve: self.inner.options.reserve,
        }
    }

    /// Takes what arrived into the store, or discards it.
    fn keep(
        &self,
        found: &Found<'_>,
        format: Option<Format>,
        stop: &AtomicBool,
    ) -> Result<StoredImage, Error> {
        let kept = self.take(found, format, stop);
        if let Err(Error::DigestMismatch { .. } | Error::Refused { .. } | Error::TooLarge { .. }) =
            kept
        {
            found.partial.discard()?;
        }
        kept
    }

    fn take(
        &self,
        found: &Found<'_>,
        format: Option<Format>,
        stop: &AtomicBool,
    ) -> Result<StoredImage, Error> {
        let Found { file, name, .. } = *found;
        let digests = &found.arrived.digests;
        Self::compare(digests, Some(found.expected), name)?;
        let packing = Packing::of(file).map_err(Error::io("read", &found.partial.part))?;
        let Some(packing) = packing else {
            let image = self.approve(file, digests, format, name)?;
            found.partial.promote(file, &image.path)?;
            self.index(&image, digests)?;
            return Ok(image);
        };
        let packed = Packed {
            file,
            packing,
            name,
            limits: self.limits(),
            stop,
        };
        let unpacked = packed.unpack(&self.tmp(), None, |_| ())?;
        let image = self.approve(unpacked.file.file(), &unpacked.digests, format, name)?;
        self.place(unpacked.file, &image)?;
        self.link_unpacked(found.expected, &image.digest)?;
        found.partial.discard()?;
        Ok(image)
    }
}

/// A download that is complete.
struct Found<'a> {
    partial: &'a Partial,
    file: &'a File,
    arrived: &'a Arrived,
    expected: &'a Digest,
    /// For errors.
    name: &'a Path,
}

/// The names under which a list may have what is at a URL: the last part of its path, decoded, and
/// as it is; then the values of its query (`…/download?file=x`), which may be paths.
fn file_names(url: &Url) -> Vec<String> {
    let last = url
        .path_segments()
        .and_then(|mut parts| parts.next_back())
        .unwrap_or_default();
    let values = url.query_pairs().map(|(_, value)| {
        let name = value.rsplit('/').next().unwrap_or_default();
        name.to_owned()
    });
    let decoded = percent_encoding::percent_decode_str(last).decode_utf8_lossy();
    let mut names = vec![decoded.into_owned(), last.to_owned()];
    names.extend(values);
    names.retain(|name| !name.is_empty());
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_to_look_for() {
        let names = |url: &str| file_names(&Url::parse(url).unwrap());
        assert_eq!(names("https://h/a/x.qcow2")[0], "x.qcow2");
        assert_eq!(names("https://h/my%20image.qcow2")[0], "my image.qcow2");
        assert_eq!(names("https://h/a%2Bb.qcow2")[0], "a+b.qcow2");
        assert_eq!(names("https://h/a+b.qcow2")[0], "a+b.qcow2");
        assert_eq!(names("https://h/a=b.qcow2")[0], "a=b.qcow2");
        let query = names("https://h/download?file=dir%2Fx.qcow2&sig=1");
        assert!(query.contains(&"x.qcow2".to_owned()), "{query:?}");
    }
}
