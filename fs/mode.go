package fs

import (
	"encoding/json"
	"errors"
	"maps"
	"sync"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// openModes counts on how many handles of this mount each file is open in
// which mode. The zero value is ready.
type openModes struct {
	mu    sync.Mutex
	files map[uint64]map[consistency.Mode]int // by handle, none empty; guarded by mu
}

func (o *openModes) add(handle uint64, mode consistency.Mode) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.files == nil {
		o.files = make(map[uint64]map[consistency.Mode]int)
	}
	if o.files[handle] == nil {
		o.files[handle] = make(map[consistency.Mode]int, 1)
	}
	o.files[handle][mode]++
}

func (o *openModes) drop(handle uint64, mode consistency.Mode) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.files[handle]
	if f[mode]--; f[mode] <= 0 {
		delete(f, mode)
	}
	if len(f) == 0 {
		delete(o.files, handle)
	}
}

// any reports whether a file is open.
func (o *openModes) any(handle uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.files[handle]) > 0
}

func (o *openModes) of(handle uint64) map[consistency.Mode]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.files[handle])
}

// opened is the open of a file called name by c, with the attributes that came
// with it. It counts until closed is called.
func (m *mount) opened(c *call, name string, a *ionclient.Attr, mayWrite bool) *openFile {
	mode, _ := consistency.InForce(name, a.Consistency, m.opts.Consistency)
	m.open.add(a.Handle, mode)
	f := &openFile{
		Handle: m.held.Open(a, mode, mayWrite), id: m.opens.Add(1),
		process: c.process, job: c.process.Caller().Account, writes: mayWrite,
	}
	m.client.OpenedBy(a.Handle, f.job, a.CBBufferSize)
	if f.writes {
		m.pages.wrote(a.Handle)
		f.process.Writing(1)
	}
	return f
}

func (m *mount) closed(handle uint64, f *openFile) {
	m.open.drop(handle, f.Mode())
	if f.writes {
		m.pages.wrote(handle)
	}
	m.pages.closed(handle)
	m.client.ClosedBy(handle, f.job)
	if f.writes {
		f.process.Writing(-1)
	}
}

// modeHere is the value of consistency.HereXattr. A mode that is stored but
// makes no sense counts as strong, as it does when the file is opened.
func (n *node) modeHere(c *call) ([]byte, error) {
	own := consistency.Default
	v, err := n.m.known.GetXattr(c, n.handle, consistency.Xattr)
	switch {
	case errors.Is(err, syscall.ENODATA):
	case err != nil:
		return nil, err
	default:
		if own, err = consistency.Parse(string(v)); err != nil {
			own = consistency.Strong
		}
	}
	h := consistency.Here{Open: n.m.open.of(n.handle)}
	name, _ := n.Parent()
	if n.IsDir() {
		name = ""
	}
	h.Mode, h.From = consistency.InForce(name, own, n.m.opts.Consistency)
	return json.Marshal(h)
}
