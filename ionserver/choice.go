package ionserver

import (
	"bytes"
	"context"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/hints"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/pvfs"
)

// choice is what was chosen for a file or directory, and is handed on to what is
// made in it. Each part is an extended attribute in PVFS2 and in no other place.
// Every change of it goes through the home of the inode, which therefore may
// remember it. Zero is no choice.
type choice struct {
	mode   ionpb.Consistency
	nodes  int64 // MPI-IO's hint cb_nodes
	buffer int64 // MPI-IO's hint cb_buffer_size, in bytes
}

// choiceXattrs are the attributes in which it is kept.
var choiceXattrs = []string{consistency.Xattr, hints.Xattr(hints.CBNodes), hints.Xattr(hints.CBBufferSize)}

// choiceOf reads the values of choiceXattrs, nil where there is none. A mode that
// cannot be understood, because another tool or a newer version set it, is STRONG,
// which promises what any other mode does; a hint is none.
func choiceOf(values [][]byte) (c choice) {
	if values[0] != nil {
		m, err := consistency.Parse(string(cText(values[0])))
		if c.mode = ionpb.ConsistencyOf(m); err != nil {
			c.mode = ionpb.Consistency_STRONG
		}
	}
	c.nodes, _ = hints.Parse(hints.CBNodes, string(cText(values[1])))
	c.buffer, _ = hints.Parse(hints.CBBufferSize, string(cText(values[2])))
	return c
}

// xattrs is how a new inode is given it; none without a choice.
func (c choice) xattrs() (out []pvfs.Xattr) {
	if c.mode != ionpb.Consistency_DEFAULT {
		out = append(out, pvfs.Xattr{Name: consistency.Xattr, Value: []byte(c.mode.Mode().String())})
	}
	for i, n := range []int64{c.nodes, c.buffer} {
		if n != 0 {
			out = append(out, pvfs.Xattr{Name: choiceXattrs[1+i], Value: strconv.AppendInt(nil, n, 10)})
		}
	}
	return out
}

// cText is the value of an attribute without the NUL with which tools of PVFS2
// end it.
func cText(v []byte) []byte { return bytes.TrimSuffix(v, []byte{0}) }

const (
	maxChoices = 16384            // inodes remembered
	choiceLife = 10 * time.Second // as tools of PVFS2 may change it, too
)

// choices is what a home knows of the choices for its inodes; that there is none
// is known as well. The zero value is ready.
type choices struct {
	mu      sync.Mutex
	known   map[uint64]knownChoice // by handle; guarded by mu
	changes uint64                 // guarded by mu; of choices by mounts, so far
}

type knownChoice struct {
	choice
	until time.Time
}

// get returns the choice if it is known. Who then asks PVFS2 for it hands changes
// on to learn.
func (k *choices) get(handle uint64, now time.Time) (c choice, known bool, changes uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	x, ok := k.known[handle]
	if !ok || now.After(x.until) {
		return choice{}, false, k.changes
	}
	return x.choice, true, k.changes
}

// learn remembers what PVFS2 said, unless a choice has changed since it was
// asked: then it may be an answer of the past.
func (k *choices) learn(handle uint64, c choice, changes uint64, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.changes == changes {
		k.putLocked(handle, c, now)
	}
}

// changed takes note that a choice was changed by edit; nil is that it is not sure
// to what.
func (k *choices) changed(handle uint64, edit func(*choice), now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.changes++
	x, ok := k.known[handle]
	delete(k.known, handle)
	if edit != nil && ok && !now.After(x.until) {
		edit(&x.choice)
		k.putLocked(handle, x.choice, now)
	}
}

func (k *choices) putLocked(handle uint64, c choice, now time.Time) {
	if k.known == nil || len(k.known) >= maxChoices {
		k.known = make(map[uint64]knownChoice)
	}
	k.known[handle] = knownChoice{c, now.Add(choiceLife)}
}

// choice returns what was chosen for an inode of this home.
func (h *home) choice(ctx context.Context, handle uint64) (choice, error) {
	c, known, changes := h.chosen.get(handle, time.Now())
	if known {
		return c, nil
	}
	values, err := h.srv.pvfs.GetXattrs(ctx, pvfs.Handle(handle), choiceXattrs...)
	if err != nil {
		return choice{}, stale(err)
	}
	c = choiceOf(values)
	h.chosen.learn(handle, c, changes, time.Now())
	return c, nil
}

// attrAndChoice returns the inode's attributes and what was chosen for it, which
// are asked for at the same time. The caller holds the inode's place in ops.
func (c *call) attrAndChoice() (a pvfs.Attr, chosen choice, err error) {
	h := c.srv.home
	chosen, known, _ := h.chosen.get(c.Handle, time.Now())
	if known {
		a, err = h.attr(c, c.Handle)
		return a, chosen, err
	}
	var g errgroup.Group
	g.Go(func() (err error) {
		chosen, err = h.choice(c.ctx, c.Handle)
		return err
	})
	a, err = h.attr(c, c.Handle)
	if choiceErr := g.Wait(); err == nil {
		err = choiceErr
	}
	return a, chosen, err
}

// inherited is what is chosen for a file that is made under a name in the
// directory of the call, whose home this is. A file whose name says that it is
// strong inherits nothing, as every mount knows that.
func (c *call) inherited(name string) (choice, error) {
	if _, ok := consistency.Auto(name); ok {
		return choice{}, nil
	}
	return c.srv.home.choice(c.ctx, c.Handle)
}

// changeChoice runs fn, which changes what was chosen for the call's inode by edit.
func (c *call) changeChoice(ctx context.Context, edit func(*choice), fn func(context.Context) error) error {
	err := fn(ctx)
	if err != nil {
		edit = nil
	}
	c.srv.home.chosen.changed(c.Handle, edit, time.Now())
	return err
}
