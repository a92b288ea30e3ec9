//! What can be done on the recording file system.

use std::ffi::OsStr;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    TimeOrNow, WriteFlags,
};

use super::choice::Random;
use super::recording::{Change, Flush, Live, Recorder};
use super::shared_memory::{self, SharedMemory};
use super::tree::{Content, Number, Tree};

/// The system may remember what it was told: nothing changes behind its back.
const REMEMBERED: Duration = Duration::from_secs(1);

/// The operations. Locks are left to the system, which keeps them as on any local disk; so is the
/// cache for reading, while every write comes here at once.
pub(super) struct Files {
    recorder: Recorder,
    /// User and group of everything.
    owner: (u32, u32),
    shared: SharedMemory,
    /// Chooses which flushes are slow, if any are.
    slow: Option<Mutex<Random>>,
}

impl Files {
    pub(super) fn new(recorder: Recorder, owner: (u32, u32), slow: Option<Random>) -> Self {
        Self { recorder, owner, shared: SharedMemory::default(), slow: slow.map(Mutex::new) }
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.recorder.lock()
    }

    fn attributes(&self, number: Number) -> Option<FileAttr> {
        let mut found = attributes(&self.live().tree, number, self.owner)?;
        found.size = self.shared.len(number).unwrap_or(found.size);
        Some(found)
    }

    fn entry(&self, number: Number, reply: ReplyEntry) {
        match self.attributes(number) {
            Some(attributes) => reply.entry(&REMEMBERED, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    /// Makes a node, unless the name is taken.
    fn make(&self, parent: INodeNo, name: &OsStr, mode: u32, directory: bool) -> Option<Number> {
        let mut live = self.live();
        if live.tree.lookup(parent.0, name).is_some() {
            return None;
        }
        let number = live.tree.unused();
        live.change(Change::Make {
            parent: parent.0,
            name: name.to_owned(),
            number,
            directory,
            mode: mode & 0o7777,
            modified: SystemTime::now(),
        });
        Some(number)
    }

    /// Takes a name away; a directory only if it is empty.
    fn unname(&self, parent: INodeNo, name: &OsStr) -> Result<(), Errno> {
        let mut live = self.live();
        let number = live.tree.lookup(parent.0, name).ok_or(Errno::ENOENT)?;
        if !is_free(&live, number) {
            return Err(Errno::ENOTEMPTY);
        }
        live.change(Change::Name { parent: parent.0, name: name.to_owned(), number: None });
        Ok(())
    }

    fn no_shared_memory(&self, error: &io::Error) -> Errno {
        self.live().missing = Some(format!(
            "files for shared memory need root and Linux 6.9 with FUSE passthrough: {error}"
        ));
        Errno::EOPNOTSUPP
    }

    /// Flushes; every tenth takes as long as up to 20 events of others, where flushes are slow.
    fn flushed(&self, flush: Flush, reply: ReplyEmpty) {
        let begun = self.live().now();
        let others = self.slow.as_ref().map_or(0, |random| {
            let mut random = random.lock().unwrap_or_else(PoisonError::into_inner);
            if random.chance(10) { 1 + random.below(20) } else { 0 }
        });
        let recorder = self.recorder.clone();
        let end = move || {
            recorder.flush(flush, begun, others);
            reply.ok();
        };
        if others == 0 { end() } else { drop(thread::spawn(end)) }
    }
}

/// Whether a name may lead elsewhere: it leads to a file or an empty directory.
fn is_free(live: &Live, number: Number) -> bool {
    let names = live.tree.nodes.get(&number).and_then(|node| node.names());
    names.is_none_or(|names| names.is_empty())
}

fn attributes(tree: &Tree, number: Number, owner: (u32, u32)) -> Option<FileAttr> {
    let node = tree.nodes.get(&number)?;
    let (kind, size, nlink) = match &node.content {
        Content::File(bytes) => {
            (FileType::RegularFile, bytes.len() as u64, tree.names_of(number).count() as u32)
        }
        Content::Directory(_) => (FileType::Directory, 4096, 2),
    };
    Some(FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: node.modified,
        mtime: node.modified,
        ctime: node.modified,
        crtime: node.modified,
        kind,
        perm: (node.mode & 0o7777) as u16,
        nlink,
        uid: owner.0,
        gid: owner.1,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    })
}

impl Filesystem for Files {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Only shared memory needs it, and says so where it is missing.
        if config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok() {
            let _ = config.set_max_stack_depth(1);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.live().tree.lookup(parent.0, name);
        match found {
            Some(number) => self.entry(number, reply),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino.0) {
            Some(attributes) => reply.attr(&REMEMBERED, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut live = self.live();
        if let Some(size) = size.filter(|size| !self.shared.resize(ino.0, *size)) {
            let (len, modified) = (size as usize, SystemTime::now());
            live.change(Change::Resize { number: ino.0, len, modified });
        }
        let mode = mode.map(|mode| mode & 0o7777);
        let modified = mtime.map(|time| match time {
            TimeOrNow::SpecificTime(time) => time,
            TimeOrNow::Now => SystemTime::now(),
        });
        if mode.is_some() || modified.is_some() {
            live.change(Change::Attributes { number: ino.0, mode, modified });
        }
        drop(live);
        self.getattr(request, ino, None, reply);
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        match self.make(parent, name, mode & !umask, true) {
            Some(number) => self.entry(number, reply),
            None => reply.error(Errno::EEXIST),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let Some(number) = self.make(parent, name, mode & !umask, false) else {
            return reply.error(Errno::EEXIST);
        };
        let Some(made) = self.attributes(number) else { return reply.error(Errno::ENOENT) };
        let (ttl, generation, handle) = (&REMEMBERED, Generation(0), FileHandle(0));
        if !shared_memory::is_name(name) {
            let flags = FopenFlags::FOPEN_KEEP_CACHE;
            return reply.created(ttl, &made, generation, handle, flags);
        }
        match self.shared.backing(number, |file| reply.open_backing(file)) {
            Ok(id) => {
                let flags = FopenFlags::empty();
                reply.created_passthrough(ttl, &made, generation, handle, flags, &id);
            }
            Err(error) => reply.error(self.no_shared_memory(&error)),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let handle = FileHandle(0);
        if !self.live().tree.names_of(ino.0).any(shared_memory::is_name) {
            return reply.opened(handle, FopenFlags::FOPEN_KEEP_CACHE);
        }
        match self.shared.backing(ino.0, |file| reply.open_backing(file)) {
            Ok(id) => reply.opened_passthrough(handle, FopenFlags::empty(), &id),
            Err(error) => reply.error(self.no_shared_memory(&error)),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        match self.unname(parent, name) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        match self.unname(parent, name) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mut live = self.live();
        let Some(number) = live.tree.lookup(parent.0, name) else {
            return reply.error(Errno::ENOENT);
        };
        let taken = live.tree.lookup(newparent.0, newname);
        if !(flags & !RenameFlags::RENAME_NOREPLACE).is_empty() {
            return reply.error(Errno::EINVAL);
        }
        if taken.is_some() && flags.contains(RenameFlags::RENAME_NOREPLACE) {
            return reply.error(Errno::EEXIST);
        }
        if taken.is_some_and(|taken| !is_free(&live, taken)) {
            return reply.error(Errno::ENOTEMPTY);
        }
        let (from, to) = ((parent.0, name.to_owned()), (newparent.0, newname.to_owned()));
        // Two names of one file stay as they are, says rename(2).
        if taken != Some(number) {
            live.change(Change::Rename { from, to, number });
        }
        reply.ok();
    }

    fn link(
        &self,
        _: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let mut live = self.live();
        if live.tree.lookup(newparent.0, newname).is_some() {
            return reply.error(Errno::EEXIST);
        }
        let (parent, name, number) = (newparent.0, newname.to_owned(), Some(ino.0));
        live.change(Change::Name { parent, name, number });
        drop(live);
        self.entry(ino.0, reply);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let live = self.live();
        match live.tree.nodes.get(&ino.0).and_then(|node| node.bytes()) {
            Some(bytes) => {
                let from = bytes.len().min(offset as usize);
                let to = bytes.len().min(from + size as usize);
                reply.data(&bytes[from..to]);
            }
            None => reply.error(Errno::EISDIR),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (number, offset, bytes) = (ino.0, offset as usize, data.into());
        let modified = SystemTime::now();
        self.live().change(Change::Write { number, offset, bytes, modified });
        reply.written(data.len() as u32);
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let mut live = self.live();
        let bytes = live.tree.nodes.get(&ino.0).and_then(|node| node.bytes());
        let (is, len) = (bytes.map_or(0, |bytes| bytes.len()), (offset + length) as usize);
        if is < len {
            live.change(Change::Resize { number: ino.0, len, modified: SystemTime::now() });
        }
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Called when a file is closed, which puts nothing on the disk.
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.flushed(Flush::File { number: ino.0, data_only: datasync }, reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.flushed(Flush::Directory(ino.0), reply);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let live = self.live();
        let Some(names) = live.tree.nodes.get(&ino.0).and_then(|node| node.names()) else {
            return reply.error(Errno::ENOTDIR);
        };
        // The number of the node it came to stays a place to go on from when others come and go.
        let mut names: Vec<_> = names.iter().filter(|(_, number)| **number > offset).collect();
        names.sort_by_key(|(_, number)| **number);
        for (name, number) in names {
            let directory = live.tree.nodes.get(number).is_some_and(|node| node.names().is_some());
            let kind = if directory { FileType::Directory } else { FileType::RegularFile };
            if reply.add(INodeNo(*number), *number, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let (blocks, files) = (1 << 20, 1 << 20);
        reply.statfs(blocks, blocks, blocks, files, files, 4096, 255, 4096);
    }
}
