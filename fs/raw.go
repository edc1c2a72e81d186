package fs

import (
	"math"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// rawFS stands between the kernel and go-fuse's node API, whose methods do not
// carry every field of the requests. It adds what is lost there and passes
// everything else through:
//
//   - WRITE says for each write whether it appends, is to be durable and must
//     clear setuid: fcntl(2) can change the first two after open. The node
//     API hands down the offset alone, so these bits travel in its unused
//     high bits, see packWrite.
//   - READ says whether it fills pages of the kernel's. That travels as readFill
//     in its offset.
//   - OPEN with O_TRUNC says apart from the open flags whether setuid must be
//     cleared. It travels as openKillPriv in the flags.
//   - FLUSH names the lock owner whose descriptor is being closed, and RELEASE
//     says that the file was locked by flock(2). POSIX makes a close by a
//     process drop all fcntl locks it has on that file; the kernel leaves this
//     to us. For flock and open-file-description locks the last close counts.
//
// Source: include/uapi/linux/fuse.h, fs/fuse/file.c of Linux 6.18.
type rawFS struct {
	fuse.RawFileSystem // go-fuse's bridge to our nodes
	pages              *pages
	owners             lockOwners
	writingBack        atomic.Int64 // writes of mapped pages in progress
}

// fuseReleaseFlockUnlock is FUSE_RELEASE_FLOCK_UNLOCK, which go-fuse lacks.
const fuseReleaseFlockUnlock = 1 << 1

// openKillPriv joins the open flags handed to node.Open; no O_ flag uses it.
const openKillPriv = 1 << 31

// readFill joins the offset handed to node.Read if the READ fills pages. The kernel
// names a lock owner in all others.
const readFill = 1 << 63

// Read is also where the kernel's number of a file of which it has pages is learnt.
func (r *rawFS) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	if in.ReadFlags&fuse.READ_LOCKOWNER != 0 {
		return r.RawFileSystem.Read(cancel, in, buf)
	}
	in.Offset |= readFill
	res, status := r.RawFileSystem.Read(cancel, in, buf)
	if p, ok := res.(*pageResult); ok {
		p.fill.of(in.NodeId)
	}
	return res, status
}

// unpackRead separates readFill from the offset.
func unpackRead(v int64) (off int64, fills bool) { return v & math.MaxInt64, v < 0 }

// The bits that packWrite puts above the offset of a write.
const (
	writeAppend   = 1 << 63
	writeKillPriv = 1 << 62
	writeSync     = 1 << 61
	maxOffset     = 1<<61 - 1
)

// packWrite returns the offset of a write together with what else the kernel
// says about it. Pages written back from a mapping keep their place, however
// the file was opened.
func packWrite(in *fuse.WriteIn) uint64 {
	v := in.Offset
	if in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 {
		v |= writeKillPriv
	}
	if in.WriteFlags&fuse.WRITE_CACHE != 0 {
		return v
	}
	if in.Flags&syscall.O_APPEND != 0 {
		v |= writeAppend
	}
	if in.Flags&syscall.O_DSYNC != 0 { // also set in O_SYNC
		v |= writeSync
	}
	return v
}

// writeFlags is what unpackWrite finds besides the offset.
type writeFlags struct{ atEnd, killPriv, sync bool }

// unpackWrite undoes packWrite.
func unpackWrite(v int64) (off int64, f writeFlags) {
	u := uint64(v)
	return int64(u & maxOffset), writeFlags{
		atEnd:    u&writeAppend != 0,
		killPriv: u&writeKillPriv != 0,
		sync:     u&writeSync != 0,
	}
}

func (r *rawFS) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	if in.Offset > maxOffset || in.Offset+uint64(in.Size) > maxOffset {
		return 0, fuse.Status(syscall.EFBIG)
	}
	if in.WriteFlags&fuse.WRITE_CACHE != 0 {
		r.writingBack.Add(1)
		defer r.writingBack.Add(-1)
	}
	in.Offset = packWrite(in)
	return r.RawFileSystem.Write(cancel, in, data)
}

func (r *rawFS) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if r.pages.drops(in.Pid) {
		return openDrop(out)
	}
	in.Flags &^= openKillPriv
	if in.Mode&fuse.OPEN_KILL_SUIDGID != 0 {
		in.Flags |= openKillPriv
	}
	return r.RawFileSystem.Open(cancel, in, out)
}

// SetLk and SetLkw note who may hold a lock. It is noted before the request
// goes out, as a wait that is interrupted may have been granted meanwhile.
func (r *rawFS) SetLk(cancel <-chan struct{}, in *fuse.LkIn) fuse.Status {
	r.noteLock(in)
	return r.RawFileSystem.SetLk(cancel, in)
}

func (r *rawFS) SetLkw(cancel <-chan struct{}, in *fuse.LkIn) fuse.Status {
	r.noteLock(in)
	return r.RawFileSystem.SetLkw(cancel, in)
}

func (r *rawFS) noteLock(in *fuse.LkIn) {
	if in.Lk.Typ != syscall.F_UNLCK && in.LkFlags&fuse.LK_FLOCK == 0 {
		r.owners.add(in.NodeId, in.Owner, in.Fh)
	}
}

// Flush is sent for each close(2), from each process.
func (r *rawFS) Flush(cancel <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	if in.Fh == dropHandle {
		return fuse.OK
	}
	status := r.RawFileSystem.Flush(cancel, in)
	if r.owners.take(in.NodeId, in.LockOwner) {
		r.unlock(cancel, in.InHeader, in.Fh, in.LockOwner, 0)
	}
	return status
}

// Release is sent when the last descriptor of an open file is gone. Whoever
// still has locks through it then is no process, whose close we would have
// seen in Flush, but the open file description itself.
func (r *rawFS) Release(cancel <-chan struct{}, in *fuse.ReleaseIn) {
	if in.Fh == dropHandle {
		return
	}
	if in.ReleaseFlags&fuseReleaseFlockUnlock != 0 {
		r.unlock(cancel, in.InHeader, in.Fh, in.LockOwner, fuse.LK_FLOCK)
	}
	for _, owner := range r.owners.takeFile(in.NodeId, in.Fh) {
		r.unlock(cancel, in.InHeader, in.Fh, owner, 0)
	}
	r.RawFileSystem.Release(cancel, in)
}

// unlock drops all locks of one kind that owner has on a file. There is nobody
// to tell if that goes wrong; node.Setlk logs it.
func (r *rawFS) unlock(cancel <-chan struct{}, h fuse.InHeader, fh, owner uint64, flags uint32) {
	r.RawFileSystem.SetLk(cancel, &fuse.LkIn{
		InHeader: h,
		Fh:       fh,
		Owner:    owner,
		Lk:       fuse.FileLock{End: math.MaxInt64, Typ: syscall.F_UNLCK},
		LkFlags:  flags,
	})
}

// lockOwners remembers who may hold fcntl locks, so that a close by anybody
// else costs no request. An entry lives until its owner closes the file, hence
// there are at most as many as open descriptors. The zero value is ready.
type lockOwners struct {
	mu sync.Mutex
	// Node id to lock owner to the open file through which it locked last.
	// guarded by mu
	nodes map[uint64]map[uint64]uint64
}

func (l *lockOwners) add(node, owner, fh uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.nodes == nil {
		l.nodes = make(map[uint64]map[uint64]uint64)
	}
	if l.nodes[node] == nil {
		l.nodes[node] = make(map[uint64]uint64)
	}
	l.nodes[node][owner] = fh
}

// take forgets owner and reports whether it was there.
func (l *lockOwners) take(node, owner uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.nodes[node][owner]
	l.dropLocked(node, owner)
	return ok
}

// takeFile forgets and returns the owners that locked through fh last.
func (l *lockOwners) takeFile(node, fh uint64) []uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []uint64
	for owner, through := range l.nodes[node] {
		if through == fh {
			out = append(out, owner)
		}
	}
	for _, owner := range out {
		l.dropLocked(node, owner)
	}
	return out
}

func (l *lockOwners) dropLocked(node, owner uint64) {
	delete(l.nodes[node], owner)
	if len(l.nodes[node]) == 0 {
		delete(l.nodes, node)
	}
}
