//! Taking a local file into the store.

use std::{
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use super::{
    image::{Progress, StoredImage},
    images::ImageStore,
};
use crate::{
    digest::{BLOCK, Digest, Hasher},
    error::Error,
    files::{self, NewFile},
    format::Format,
    inspect::inspect_named,
    lock, space,
    units::ByteSize,
};

/// A local file to take into the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Import {
    /// The format it was announced with, if any; another one is refused.
    pub format: Option<Format>,
    /// The digest it must have, if known.
    pub expected: Option<Digest>,
}

impl ImageStore {
    /// Takes a local file into the store: copies, hashes and inspects it. The file itself is
    /// only read. `progress` is called after each block. A damaged image of the same content is
    /// mended.
    ///
    /// # Errors
    /// [`Error::InUse`] while a QEMU writes it; [`Error::Refused`], [`Error::DigestMismatch`], [`Error::TooLarge`], [`Error::NoSpace`];
    /// those of the file system. Nothing is stored then.
    pub fn import(
        &self,
        path: &Path,
        import: &Import,
        mut progress: impl FnMut(Progress),
    ) -> Result<StoredImage, Error> {
        let source = files::open_read(path).map_err(Error::into_refusal)?;
        let len = source
            .metadata()
            .map_err(Error::io("examine", path))?
            .size();
        let max = self.inner.options.max_image_size;
        if len > max.bytes() {
            let (what, size) = (path.display().to_string(), ByteSize::from_bytes(len));
            return Err(Error::TooLarge { what, size, max });
        }
        lock::refuse_writer(&source, path)?;
        // Look before copying: a refusal costs little.
        inspect_named(&source, import.format, path)?;
        space::require(&self.tmp(), len, self.inner.options.reserve)?;

        let _import = self.inner.flights.import();
        // O_TMPFILE where it exists: a crash leaves nothing. Elsewhere sweep() removes it.
        let copy = NewFile::create(&self.tmp().join("import"))?;
        let mut hasher = Hasher::for_expected(import.expected.as_ref());
        let mut block = vec![0; BLOCK];
        let mut at = 0;
        while at < len {
            let want = BLOCK.min(usize::try_from(len - at).unwrap_or(BLOCK));
            let block = block.get_mut(..want).unwrap_or_default();
            source
                .read_exact_at(block, at)
                .map_err(Error::io("read", path))?;
            hasher.update(block);
            if block.iter().any(|&b| b != 0) {
                copy.file()
                    .write_all_at(block, at)
                    .map_err(Error::io("copy", path))?;
            }
            at += want as u64;
            progress(Progress::new(at, Some(len)));
        }
        copy.file().set_len(len).map_err(Error::io("copy", path))?;
        // Who began to write in between may have torn the copy.
        lock::refuse_writer(&source, path)?;
        let digests = hasher.finish();
        let expected = import.expected.as_ref();
        let image = self.approve(copy.file(), &digests, expected, import.format, path)?;
        // What has the name may be damaged: a name is no proof of a content.
        if self.is_sound(&image.digest)? {
            self.index(&image, &digests)?;
            return Ok(image);
        }
        copy.publish_over(&image.path)?;
        self.index(&image, &digests)?;
        Ok(image)
    }
}
