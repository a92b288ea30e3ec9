//! The boxed stores that are opened by URL keep every law.

/// A backend behind `Box<dyn Backend>`, opened by an `sqlite:` URL.
mod sqlite {
    use std::path::Path;

    use conformance::Fixture;
    use lightning_kvstore::{Backend, OpenOptions, Result, open_backend};
    use tempfile::TempDir;

    struct SqliteUrl(TempDir);

    impl Fixture for SqliteUrl {
        type Backend = Box<dyn Backend>;

        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn open(&self) -> Result<Self::Backend> {
            let url = format!("sqlite:{}/store/node.sqlite", self.0.path().display());
            open_backend(&url.parse()?, &OpenOptions::default())
        }

        fn too_large(&self) -> usize {
            1_000_000_001
        }

        fn directory(&self) -> Option<&Path> {
            Some(self.0.path())
        }
    }

    conformance::suite!(SqliteUrl);
}
