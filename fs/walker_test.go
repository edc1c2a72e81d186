package fs

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/cache/names"
	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// forest is a tree at work: what its processes have told each other.
type forest struct {
	start time.Time
	names []string
	modes [maxTreeInodes]uint32 // of what was there before
	used  [2]int                // of the first directories and of names, most calls are about so many

	mu     sync.Mutex
	number map[uint64]inode // guarded by mu
	dirs   []uint64         // guarded by mu; that were seen
	others []uint64         // guarded by mu
}

// see numbers an inode.
func (f *forest) see(h uint64, kind ionpb.ObjType) inode {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, ok := f.number[h]
	if !ok {
		n = inode(len(f.number) + 1)
		f.number[h] = n
		if kind == ionpb.ObjType_DIR {
			f.dirs = append(f.dirs, h)
		} else if kind != ionpb.ObjType_NONE {
			f.others = append(f.others, h)
		}
	}
	return n
}

// walker is a process on a node.
type walker struct {
	*mount
	*forest
	proc  int
	rnd   *rand.Rand
	seen  *sync.Map // on its node: what names meant last, by entryKey
	open  []uint64
	calls []treeCall
}

func (w *walker) now() int64 { return int64(time.Since(w.start)) }

// note adds a call that began at since and has just returned.
func (w *walker) note(c treeCall, since int64, err error) {
	c.proc, c.call, c.ret, c.errno = w.proc, since, w.now(), errno.Of(err)
	w.calls = append(w.calls, c)
}

func (w *walker) place(k entryKey) place {
	return place{w.see(k.dir, ionpb.ObjType_DIR), uint8(slices.Index(w.names, k.name))}
}

// sight is the call that has seen the attributes a.
func (w *walker) sight(op treeOp, h uint64, a *ionclient.Attr) treeCall {
	return treeCall{op: op, inode: w.see(h, a.Type), mode: a.Mode, nlink: a.Nlink, times: [2]int64{a.Mtime, a.Ctime}}
}

func (w *walker) anyName() entryKey {
	return entryKey{w.anyDir(), w.names[w.rnd.IntN(w.used[1])]}
}

func (w *walker) anyDir() uint64 {
	w.forest.mu.Lock()
	defer w.forest.mu.Unlock()
	if w.rnd.IntN(6) == 0 {
		return w.dirs[w.rnd.IntN(len(w.dirs))]
	}
	return w.dirs[w.rnd.IntN(w.used[0])]
}

// anyInode is one of those that were seen, the latest most likely.
func (w *walker) anyInode(file bool) uint64 {
	w.forest.mu.Lock()
	defer w.forest.mu.Unlock()
	from := w.others
	if !file && w.rnd.IntN(3) == 0 {
		from = w.dirs
	}
	if len(from) == 0 {
		return 0
	}
	return from[len(from)-1-min(w.rnd.IntN(len(from)), w.rnd.IntN(len(from)))]
}

// meant is what a name meant when this node saw it last, 0 for none or, if it is to
// be a file, for a directory.
func (w *walker) meant(k entryKey, file bool) uint64 {
	h, _ := w.seen.Load(k)
	n, _ := h.(uint64)
	w.forest.mu.Lock()
	defer w.forest.mu.Unlock()
	if file && slices.Contains(w.dirs, n) {
		return 0
	}
	return n
}

func (w *walker) lookup(ctx context.Context, k entryKey) {
	since := w.now()
	a, err := w.known.Lookup(ctx, k.dir, k.name)
	c := treeCall{op: treeLookup, at: w.place(k)}
	if err == nil {
		c.inode, c.kind = w.see(a.Handle, a.Type), a.Type
		w.note(w.sight(treeSight, a.Handle, &a), since, nil)
	}
	w.note(c, since, err)
	w.seen.Store(k, a.Handle)
}

func (w *walker) make(ctx context.Context, k entryKey, kind ionpb.ObjType) {
	since := w.now()
	mode := []uint32{0o600, 0o644, 0o755}[w.rnd.IntN(3)]
	c := treeCall{op: treeMake, at: w.place(k), kind: kind, mode: mode}
	var a ionclient.Attr
	var err error
	switch open := w.rnd.IntN(3) == 0; {
	case kind == ionpb.ObjType_DIR:
		a, err = w.known.Mkdir(ctx, k.dir, k.name, mode, 0, 0)
	case kind == ionpb.ObjType_LINK:
		a, err = w.known.Symlink(ctx, k.dir, k.name, "target", 0, 0)
		c.mode = a.Mode
	case open:
		c.op = treeCreate
		if a, err = w.known.CreateOpen(ctx, k.dir, k.name, mode, 0, 0); err == nil {
			w.open = append(w.open, a.Handle)
		}
	default:
		a, err = w.known.Create(ctx, k.dir, k.name, mode, 0, 0)
	}
	if err == nil {
		c.inode = w.see(a.Handle, kind)
		w.seen.Store(k, a.Handle)
	}
	w.note(c, since, err)
}

func (w *walker) remove(ctx context.Context, k entryKey, dir bool) {
	since := w.now()
	var err error
	c := treeCall{op: treeUnlink, at: w.place(k)}
	if dir {
		c.op = treeRmdir
		err = w.known.Rmdir(ctx, k.dir, k.name, w.meant(k, false))
	} else {
		err = w.known.Unlink(ctx, k.dir, k.name, w.meant(k, true))
	}
	w.note(c, since, err)
}

func (w *walker) rename(ctx context.Context, from, to entryKey) {
	since := w.now()
	c := treeCall{op: treeReplace, at: w.place(from), to: w.place(to), flags: []uint32{0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE}[w.rnd.IntN(4)]}
	err := w.known.Rename(ctx, ionclient.Name{Dir: from.dir, Name: from.name, Handle: w.meant(from, false)}, ionclient.Name{Dir: to.dir, Name: to.name, Handle: w.meant(to, false)}, c.flags)
	w.note(c, since, err)
}

// list reads a directory, each entry of which is as it was at a moment of its own.
func (w *walker) list(ctx context.Context, dir uint64) {
	since := w.now()
	all, err := w.known.ReadDir(ctx, dir)
	if err != nil {
		w.note(treeCall{op: treeList, at: w.place(entryKey{dir, w.names[0]})}, since, err)
		return
	}
	for _, name := range w.names {
		c := treeCall{op: treeLookup, at: w.place(entryKey{dir, name})}
		i := slices.IndexFunc(all, func(e names.Named) bool { return e.Name == name })
		if i < 0 {
			w.note(c, since, syscall.ENOENT)
			continue
		}
		c.kind = objType(all[i].Entry)
		c.inode = w.see(all[i].Handle, c.kind)
		w.note(c, since, nil)
	}
}

func (w *walker) getAttr(ctx context.Context, h uint64) {
	since := w.now()
	a, err := w.known.GetAttr(ctx, h)
	w.note(w.sight(treeSight, h, &a), since, err)
}

func (w *walker) chmod(ctx context.Context, h uint64) {
	since := w.now()
	mode := uint32(w.rnd.IntN(0o1000)) | 0o400
	a, err := w.known.SetAttr(ctx, h, ionclient.SetAttr{Mode: &mode})
	if err == nil && a.Mode != mode {
		err = errno.New("chmod: another mode", syscall.ENOTRECOVERABLE)
	}
	w.note(w.sight(treeChmod, h, &a), since, err)
}

func (w *walker) openFile(ctx context.Context, h uint64) {
	since := w.now()
	a, err := w.known.Open(ctx, h, []uint32{syscall.O_RDONLY, syscall.O_RDWR}[w.rnd.IntN(2)], false)
	w.note(w.sight(treeOpen, h, &a), since, err)
	if err == nil {
		w.open = append(w.open, h)
	}
}

func (w *walker) closeFile(ctx context.Context) {
	since := w.now()
	h := w.open[0]
	w.open = w.open[1:]
	err := w.known.Close(ctx, h, false)
	w.note(treeCall{op: treeClose, inode: w.see(h, ionpb.ObjType_FILE)}, since, err)
}

// call makes a random call; weights are how often each kind of them comes.
func (w *walker) call(ctx context.Context, weights [11]int) {
	sum := 0
	for _, n := range weights {
		sum += n
	}
	dice, kind := w.rnd.IntN(sum), 0
	for ; dice >= weights[kind]; kind++ {
		dice -= weights[kind]
	}
	k := w.anyName()
	switch h := w.anyInode(kind == 10); kind {
	case 0:
		w.lookup(ctx, k)
	case 1:
		w.list(ctx, k.dir)
	case 2:
		w.make(ctx, k, ionpb.ObjType_FILE)
	case 3:
		w.make(ctx, k, ionpb.ObjType_DIR)
	case 4:
		w.make(ctx, k, ionpb.ObjType_LINK)
	case 5, 6:
		if w.rnd.IntN(2) == 0 {
			w.lookup(ctx, k)
		}
		w.remove(ctx, k, kind == 6)
	case 7:
		to := w.anyName()
		if w.rnd.IntN(2) == 0 {
			w.lookup(ctx, k)
			w.lookup(ctx, to)
		}
		w.rename(ctx, k, to)
	case 8:
		if h != 0 {
			w.getAttr(ctx, h)
		}
	case 9:
		if h != 0 {
			w.chmod(ctx, h)
		}
	case 10:
		if len(w.open) > 0 && w.rnd.IntN(2) == 0 {
			w.closeFile(ctx)
		} else if h != 0 {
			w.openFile(ctx, h)
		}
	}
}
