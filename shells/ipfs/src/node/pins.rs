//! Pins of the node: making, removing and listing them.

use super::Node;
use crate::Cid;
use crate::reader::{blocking, stream_in_batches};
use crate::steps::Recorder;
use crate::store::IDENTITY;
use crate::{Error, Pin, PinFilter, PinMode, PinStatus, Progress, codec, dag};
use futures::stream::{BoxStream, StreamExt};

/// Maximum length of a pin's name, in bytes; Kubo's limit.
const NAME_MAX: usize = 255;

impl Node {
    /// Fetches the missing blocks of a DAG and records the pin once all of it is local and synced. Dropping
    /// the future cancels the pin. Pinning again in the same mode replaces the name.
    ///
    /// # Errors
    /// [`Error::Pinned`] if the CID is pinned recursively and `mode` is direct; [`Error::Invalid`] for too
    /// long a name; [`Error::Full`]; [`Error::Malformed`]; [`Error::NotFound`] if offline.
    pub async fn pin(
        &self,
        cid: Cid,
        mode: PinMode,
        name: String,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<(), Error> {
        if name.len() > NAME_MAX {
            return Err(Error::invalid(format!(
                "a pin's name has at most {NAME_MAX} bytes"
            )));
        }
        let store = &self.inner.store;
        let held = cid.hash().code() == IDENTITY && (mode == PinMode::Direct || codec::is_leaf(&cid));
        let old = if held { None } else { self.pin_of(&cid)? };
        let broken = self.is_broken(&cid);
        if old
            .as_ref()
            .is_some_and(|old| old.mode == mode && old.name == name && !broken)
        {
            progress(Progress::complete());
            return Ok(());
        }
        let old = old.map(|pin| pin.mode);
        // A recorded pin has all its blocks, unless some are known to be damaged.
        let complete = held || (old == Some(mode) && !broken);
        let _lease = (!complete).then(|| store.protect().root(cid));
        match mode {
            _ if complete => progress(Progress::complete()),
            PinMode::Direct if old == Some(PinMode::Recursive) => {
                return Err(Error::Pinned {
                    cid,
                    why: "already pinned recursively",
                });
            }
            PinMode::Direct => {
                store
                    .protect()
                    .touch_visited([crate::store::key_of(&cid).as_slice()].into_iter());
                let size = Box::pin(self.reader().get(cid)).await?.len() as u64;
                progress(Progress {
                    blocks: 1,
                    bytes: size,
                    total: size,
                });
            }
            PinMode::Recursive => Box::pin(self.fetch(cid, &progress)).await?,
        }
        let writing = Recorder::current().begin("store.pin");
        writing.end_with(store.pin(&Pin { cid, mode, name }).await)?;
        self.inner.broken.remove(&cid);
        if !complete {
            self.inner.provider.pinned(cid);
        }
        Ok(())
    }

    /// Fetches the missing blocks of a DAG, if there is room for it.
    async fn fetch(&self, cid: Cid, progress: &(impl Fn(Progress) + Send + Sync)) -> Result<(), Error> {
        let step = Recorder::current().begin("dag.fetch");
        let (reader, reservation) = (self.reader(), self.inner.reserved.reservation());
        let (total, before) = match self.admit(cid, &reservation, &reader, progress).await {
            Ok(admitted) => admitted,
            refused => return step.end_with(refused.map(|_| ())),
        };
        let noting = |done: Progress| {
            let done = Progress {
                bytes: before + done.bytes,
                total,
                ..done
            };
            step.set_number("ipfs.blocks", done.blocks);
            step.set_number("ipfs.bytes", done.bytes);
            reservation.progressed(done);
            progress(done);
        };
        let fetched = dag::fetch(&reader, cid, &noting).await;
        step.end_with(fetched)
    }

    /// Removes a pin of either mode; its blocks stay until a collection. Returns its mode.
    ///
    /// # Errors
    /// [`Error::NotPinned`]; the store cannot be written.
    pub async fn unpin(&self, cid: &Cid) -> Result<PinMode, Error> {
        Ok(self.inner.store.unpin(cid).await?.mode)
    }

    /// Pins `to` recursively under the name of the recursive pin `from`, and removes `from` if `unpin`.
    ///
    /// # Errors
    /// [`Error::Pinned`] if `from` is not pinned recursively; as [`Node::pin`].
    pub async fn pin_update(&self, from: &Cid, to: Cid, unpin: bool) -> Result<(), Error> {
        let old = self.pin_of(from)?.filter(|pin| pin.mode == PinMode::Recursive);
        let old = old.ok_or(Error::Pinned {
            cid: *from,
            why: "'from' cid was not recursively pinned already",
        })?;
        self.pin(to, PinMode::Recursive, old.name, |_| {}).await?;
        if unpin && *from != to {
            self.unpin(from).await?;
        }
        Ok(())
    }

    /// Streams a snapshot of the recorded pins in order of the CID's bytes, in constant memory.
    ///
    /// # Errors
    /// An item is an error when the store cannot be read; it is the last item.
    pub fn pins(&self, filter: PinFilter) -> BoxStream<'static, Result<Pin, Error>> {
        let fits = move |pin: &Result<Pin, Error>| match pin {
            Err(_) => true,
            Ok(pin) => {
                filter.mode.is_none_or(|mode| pin.mode == mode)
                    && filter
                        .name
                        .as_ref()
                        .is_none_or(|part| pin.name.contains(part.as_str()))
            }
        };
        stream_in_batches(self.inner.store.pins().map(|pins| pins.filter(fits))).boxed()
    }

    /// Returns the recorded pin of this CID.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn pin_of(&self, cid: &Cid) -> Result<Option<Pin>, Error> {
        self.inner.store.pin_of(cid)
    }

    /// Returns why this CID is kept, if it is. Walks all recursive pins only for a local block that is not
    /// pinned itself: a pin has all its blocks, and identity CIDs need no keeping.
    ///
    /// # Errors
    /// The store cannot be read, or a pin's block cannot be decoded.
    pub async fn pin_status(&self, cid: &Cid) -> Result<Option<PinStatus>, Error> {
        let (store, cid) = (self.inner.store.clone(), *cid);
        blocking(move || {
            for name in equivalent_cids(&cid) {
                if let Some(pin) = store.pin_of(&name)? {
                    return Ok(Some(PinStatus::Pinned(pin)));
                }
            }
            if cid.hash().code() == IDENTITY || !store.has(&cid)? {
                return Ok(None);
            }
            let mut seen = dag::Visited::default();
            for pin in store.pins()? {
                let pin = pin?;
                if pin.cid.hash() == cid.hash() {
                    return Ok(Some(PinStatus::Pinned(pin)));
                }
                if pin.mode == PinMode::Recursive && dag::reaches(&store, &pin.cid, &cid, &mut seen)? {
                    return Ok(Some(PinStatus::Indirect(pin.cid)));
                }
            }
            Ok(None)
        })
        .await
    }

    /// Returns a recursive pin above this CID, whether or not the CID is pinned itself.
    pub(crate) async fn recursive_pin_above(&self, cid: &Cid) -> Result<Option<Cid>, Error> {
        let (store, cid) = (self.inner.store.clone(), *cid);
        blocking(move || {
            let mut seen = dag::Visited::default();
            for pin in store.pins()? {
                let pin = pin?;
                if pin.mode == PinMode::Recursive && dag::reaches(&store, &pin.cid, &cid, &mut seen)? {
                    return Ok(Some(pin.cid));
                }
            }
            Ok(None)
        })
        .await
    }

    /// Streams every block below a recursive pin that is not pinned itself, each once, unordered.
    ///
    /// # Errors
    /// An item is an error when the store cannot be read or a pin's block cannot be decoded; it is the last
    /// item.
    pub fn indirect_pins(&self) -> BoxStream<'static, Result<Cid, Error>> {
        let store = self.inner.store.clone();
        crate::reader::stream_from_task(|out| async move {
            blocking(move || {
                let mut seen = dag::Visited::default();
                for pin in store.pins()? {
                    let pin = pin?;
                    if pin.mode == PinMode::Recursive {
                        dag::for_each_below(
                            &store,
                            pin.cid,
                            &mut seen,
                            &mut |cid| match store.pin_of(&cid)? {
                                Some(_) => Ok(()),
                                None => out.blocking_send(cid),
                            },
                        )?;
                    }
                }
                Ok(())
            })
            .await
        })
    }
}

/// Returns a CID and the usual other CIDs of the same block.
fn equivalent_cids(cid: &Cid) -> Vec<Cid> {
    let codecs = [codec::RAW, codec::DAG_PB, codec::DAG_CBOR, codec::DAG_JSON];
    let mut names = vec![*cid];
    names.extend(Cid::new_v0(*cid.hash()));
    names.extend(codecs.map(|codec| Cid::new_v1(codec, *cid.hash())));
    names
}
