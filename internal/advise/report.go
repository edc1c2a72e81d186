package advise

import (
	"fmt"
	"time"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/trace"
)

// Need is the weakest mode that orders a pair of conflicting accesses.
type Need uint8

// From least to most.
const (
	NeedNothing Need = iota // there is no pair
	NeedSession
	NeedCommit
	NeedStrong
	NeedMore // no mode does: the accesses came at the same time
)

// Mode is the weakest mode that is right for what has this need.
func (n Need) Mode() consistency.Mode {
	switch n {
	case NeedNothing, NeedSession:
		return consistency.Session
	case NeedCommit:
		return consistency.Commit
	}
	return consistency.Strong
}

// Order is what says that one access came before another, besides time.
type Order string

// The kinds of evidence.
const (
	ByLock    Order = "lock"    // a lock was passed on
	ByBarrier Order = "barrier" // one that was imported stands between them
	ByOpen    Order = "open"    // the file was opened after the other process had published
	ByTime    Order = "time"    // nothing else
)

// Access is one side of a conflict.
type Access struct {
	Who   string `json:"who"`
	Node  string `json:"node"`
	Call  string `json:"call"`
	Start int64  `json:"start"` // nanoseconds since 1970
	End   int64  `json:"end"`
}

// Conflict is pairs of accesses of two processes that conflict, of one kind and
// need; the first pair stands for all.
type Conflict struct {
	Kind    string `json:"kind"` // such as "read after write"
	Need    Need   `json:"-"`
	Mode    string `json:"needs"` // Need.Mode, or "a lock or a message"
	First   Access `json:"first"`
	Second  Access `json:"second"`
	Off     int64  `json:"off"` // bytes that both have
	Len     int64  `json:"len"`
	Order   Order  `json:"order"`
	Missing string `json:"missing"` // what a weaker mode would have needed; empty if nothing
	Pairs   int    `json:"pairs"`
}

// Verdict is what a file needs by one set of rules.
type Verdict struct {
	Need Need             `json:"-"`
	Mode consistency.Mode `json:"mode"`
}

// File is what was found about one file.
type File struct {
	Path    string             `json:"path"` // below the mount point
	Handle  uint64             `json:"handle"`
	Writers []string           `json:"writers"`
	Readers []string           `json:"readers"`
	Read    int64              `json:"bytes_read"`
	Written int64              `json:"bytes_written"`
	Opened  []consistency.Mode `json:"opened_in"` // modes in which it was open

	Model  Verdict          `json:"model"`  // by the formal model alone
	Zoidfs Verdict          `json:"zoidfs"` // by all that docs/consistency.md promises
	Advice consistency.Mode `json:"advice"`
	Why    string           `json:"why"`
	Hint   string           `json:"hint,omitempty"`
	Breaks []Conflict       `json:"conflicts"` // what a weaker mode than Model's leaves unordered, or races
	Orders map[Order]int    `json:"ordered_by"`
	// Margin is the least time between a close or fsync and the open by another
	// process that makes session enough; 0 if there is none.
	Margin  time.Duration `json:"margin_ns,omitempty"`
	Partial bool          `json:"partial,omitempty"` // too many pieces to look at all of them
}

// Report is what Analyse found.
type Report struct {
	Files   []File   `json:"files"`
	Skipped int      `json:"unknown_processes"` // accesses by nobody knows whom, which are left out
	Notes   []string `json:"notes"`
}

// maxBreaks bounds the conflicts that are shown of a file.
const maxBreaks = 8

// judge fills in what follows from the conflicts.
func (f *File) judge(shared, locked int) {
	f.Model.Mode, f.Zoidfs.Mode = f.Model.Need.Mode(), f.Zoidfs.Need.Mode()
	f.Advice = f.Model.Mode
	name := f.Path
	if m, ok := consistency.Auto(base(name)); ok {
		f.Advice, f.Why = m, "an MPI library synchronises by it: it is strong whatever is set"
		return
	}
	switch {
	case f.Model.Need == NeedMore:
		f.Why = "accesses overlap in time: no mode orders them, but a lock or a message between the processes would"
	case shared > 0 && locked == shared:
		f.Advice = consistency.Strong
		f.Why = "all that is shared is locked: weaker modes than strong are right where they order it, and gain nothing"
	case f.Model.Need == NeedStrong:
		f.Why = "bytes are used by another process before their writer has synchronised"
	case f.Model.Need == NeedCommit:
		f.Why = "writers synchronise before others use their bytes, but these do not open the file anew"
	case f.Model.Need == NeedSession:
		f.Why = "whoever uses bytes of another process has opened the file after that one had closed it"
	case f.Written == 0:
		f.Why = "it is only read"
		if len(f.Readers) > 1 {
			f.Hint = "if it never changes, laminated and chmod a-w let nodes keep it for good"
		}
	default:
		f.Why = "no two processes use the same bytes; session shows it complete to whoever opens it later"
	}
	if f.Zoidfs.Need < f.Model.Need {
		f.Hint = fmt.Sprintf("zoidfs itself promises more than the model and would get by with %v; other file systems would not", f.Zoidfs.Mode)
	}
}

func base(path string) string {
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '/' {
			return path[i+1:]
		}
	}
	return path
}

// call is how an access shows.
func callText(c *trace.Call) string {
	named := *c
	named.Path, named.To = "", ""
	return named.String()
}
