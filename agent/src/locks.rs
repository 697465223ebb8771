//! A lock for each key, as long as somebody holds or awaits it.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{Mutex as Lock, OwnedMutexGuard};

/// Locks by key.
#[derive(Debug)]
pub(crate) struct Locks<K>(Mutex<HashMap<K, Weak<Lock<()>>>>);

impl<K> Default for Locks<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone> Locks<K> {
    /// Waits for the lock of a key, and takes it.
    pub(crate) async fn lock(&self, key: &K) -> OwnedMutexGuard<()> {
        self.of(key).lock_owned().await
    }

    fn of(&self, key: &K) -> Arc<Lock<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = locks.get(key).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(Lock::new(()));
        locks.insert(key.clone(), Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_key_waits_for_itself_alone_and_nothing_is_kept() {
        let locks = Locks::default();
        let held = locks.lock(&"a").await;
        assert!(locks.of(&"a").try_lock().is_err());
        drop(locks.lock(&"b").await);
        drop(held);
        drop(locks.lock(&"c").await);
        assert_eq!(locks.0.lock().unwrap().len(), 1, "only the last one");
    }
}
