package pvfs

import (
	"container/list"
	"context"
	"crypto/md5"
	"encoding/binary"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/pvfs/wire"
)

const (
	maxDirInfos = 16384            // objects remembered
	dirInfoLife = 10 * time.Second // as another client may change what a directory wishes
)

// dirInfo is what we keep of a directory: where its entries live, which changes
// only when a bucket splits, and what it wishes for new files. It is immutable.
type dirInfo struct {
	wire.DistDir
	hint wire.DirHint
}

func (d *dirInfo) same(w *wire.Attr) bool {
	return slices.Equal(d.Dirdata, w.DistDir.Dirdata) && slices.Equal(d.Bitmap, w.DistDir.Bitmap)
}

// actives lists the buckets that hold entries.
func (d *dirInfo) actives() []Handle {
	var out []Handle
	for i, h := range d.Dirdata {
		if d.Active(i) {
			out = append(out, h)
		}
	}
	return out
}

// mayGrow reports whether there are buckets that entries may still move to.
func (d *dirInfo) mayGrow() bool {
	for i := range d.Dirdata {
		if !d.Active(i) {
			return true
		}
	}
	return false
}

// bucket returns the object that holds the entry called name. The hash is the
// end of the name's MD5; fewer of its bits count while buckets are inactive.
// Source: PROTOCOL.md §9.1; OrangeFS src/common/misc/dist-dir-utils.c.
func (d *dirInfo) bucket(name string) Handle {
	if len(d.Dirdata) == 1 {
		return d.Dirdata[0]
	}
	sum := md5.Sum([]byte(name))
	hash := binary.LittleEndian.Uint64(sum[8:])
	for level := min(d.TreeHeight, 16); level > 0; level-- {
		if b := int(hash & (1<<level - 1)); d.Active(b) {
			return d.Dirdata[b]
		}
	}
	return d.Dirdata[0]
}

// dirCache remembers the dirInfo of directories, and of other objects that they
// are none. The least recently used go first.
type dirCache struct {
	mu    sync.Mutex
	byH   map[Handle]*list.Element // guarded by mu
	order list.List                // guarded by mu; of *dirEntry, most recently used first
}

type dirEntry struct {
	h       Handle
	info    *dirInfo // nil: no directory
	expires time.Time
}

func newDirCache() *dirCache { return &dirCache{byH: map[Handle]*list.Element{}} }

func (d *dirCache) get(h Handle) *dirEntry {
	d.mu.Lock()
	defer d.mu.Unlock()
	e, ok := d.byH[h]
	if !ok {
		return nil
	}
	d.order.MoveToFront(e)
	return e.Value.(*dirEntry)
}

// peek returns what is known of directory h, nil if nothing or too old.
func (d *dirCache) peek(h Handle) *dirInfo {
	e := d.get(h)
	if e == nil || time.Now().After(e.expires) {
		return nil
	}
	return e.info
}

// isOther reports whether h is known to be no directory.
func (d *dirCache) isOther(h Handle) bool {
	e := d.get(h)
	return e != nil && e.info == nil
}

// put remembers what the attributes of h say and returns it, nil if h is no
// directory.
func (d *dirCache) put(h Handle, w *wire.Attr) *dirInfo {
	var info *dirInfo
	if w.Type == wire.TypeDirectory && w.Mask&wire.AttrDistDir != 0 && len(w.DistDir.Dirdata) > 0 {
		info = &dirInfo{w.DistDir, w.DirHint}
	}
	e := &dirEntry{h, info, time.Now().Add(dirInfoLife)}
	d.mu.Lock()
	defer d.mu.Unlock()
	if old, ok := d.byH[h]; ok {
		old.Value = e
		d.order.MoveToFront(old)
		return info
	}
	d.byH[h] = d.order.PushFront(e)
	if d.order.Len() > maxDirInfos {
		last := d.order.Back()
		delete(d.byH, last.Value.(*dirEntry).h)
		d.order.Remove(last)
	}
	return info
}

// reset forgets everything.
func (d *dirCache) reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.byH)
	d.order.Init()
}

func (d *dirCache) drop(h Handle) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e, ok := d.byH[h]; ok {
		delete(d.byH, h)
		d.order.Remove(e)
	}
}

// dirInfo returns what is known of directory h, asking its server if need be.
// ENOTDIR if it is none.
func (c *Client) dirInfo(ctx context.Context, h Handle) (*dirInfo, error) {
	if info := c.dirs.peek(h); info != nil {
		return info, nil
	}
	return c.freshDirInfo(ctx, h)
}

func (c *Client) freshDirInfo(ctx context.Context, h Handle) (*dirInfo, error) {
	w, err := c.getattr(ctx, h, attrMask)
	if err != nil {
		c.dirs.drop(h)
		return nil, err
	}
	info := c.dirs.put(h, &w)
	if info == nil {
		return nil, wrongType("dir", syscall.ENOTDIR)
	}
	return info, nil
}
