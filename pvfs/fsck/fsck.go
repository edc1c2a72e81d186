// Package fsck checks a PVFS2 file system while it is in use: OrangeFS servers
// or the embedded one, over the same wire protocol as every client.
//
// A pass lists the objects of every server, then what servers hold in reserve
// for objects to come, then reads the attributes of all objects and the entries
// of all directories, and counts for each object who refers to it. All servers
// work in parallel. A pass keeps 10 bytes an object, up to 20 while it lists
// them, 25 more a directory, and at most Options.MaxFindings findings in memory.
//
// Nothing is locked, so a pass also finds what was only under way: an object
// whose entry is not made yet, an entry that was read before and after a
// rename. What a pass suspects must therefore be the same in a second one, and
// then stand when asked for once more by itself, or it is not reported. An
// object that seems to have lost its name must not have changed between the
// passes either, since a new entry changes the object's ctime.
//
// Check changes nothing. Repair removes what nothing refers to and entries that
// lead nowhere, and nothing else: what else is found needs a decision.
//
// It does not look into files, and it cannot tell whether a file's bytes are
// the right ones. Safe for concurrent use.
//
// Sources: PROTOCOL.md §6 and §9; OrangeFS src/apps/admin/pvfs2-fsck.c and
// src/server/iterate-handles.sm for what counts as reserved.
package fsck

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// Defaults of Options.
const (
	DefaultMaxFindings = 100_000
	DefaultSettle      = 1100 * time.Millisecond
)

// Options of Check. The zero value is useful.
type Options struct {
	// MaxFindings is how many findings are listed; what is beyond is counted.
	// 0 means DefaultMaxFindings.
	MaxFindings int
	// Settle is the pause between the passes. Below a second, which is as fine
	// as servers keep time, a rename may pass for a loss. 0 means DefaultSettle.
	Settle time.Duration
	// Logger gets the progress; nil discards it.
	Logger *slog.Logger
}

// Validate names the first field that is wrong.
func (o Options) Validate() error {
	switch {
	case o.MaxFindings < 0:
		return errors.New("fsck: Options.MaxFindings is negative")
	case o.Settle < 0:
		return errors.New("fsck: Options.Settle is negative")
	}
	return nil
}

func (o Options) withDefaults() Options {
	o.MaxFindings = cmp.Or(o.MaxFindings, DefaultMaxFindings)
	o.Settle = cmp.Or(o.Settle, DefaultSettle)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Report is the result of a check.
type Report struct {
	FS       string           `json:"fs"`
	Began    time.Time        `json:"began"`
	Took     time.Duration    `json:"took_ns"`
	Servers  int              `json:"servers"`
	Objects  map[string]int64 `json:"objects"` // by type; "reserved" are those that pools hold
	Entries  int64            `json:"entries"`
	Bytes    int64            `json:"bytes"`    // in datafiles
	Open     int              `json:"open"`     // files without a name that I/O nodes keep for those who have them open
	Findings []Finding        `json:"findings"` // sorted by kind, then handle
	More     int64            `json:"more"`     // suspicions beyond Options.MaxFindings, not looked into
	Changing int              `json:"changing"` // what looked wrong and was under way
}

// Left is how many findings are not repaired.
func (r *Report) Left() int {
	n := int(r.More)
	for i := range r.Findings {
		if !r.Findings[i].Repaired {
			n++
		}
	}
	return n
}

// Check looks for damage. The error is that of a server that did not answer or
// could not be understood: then nothing is known.
func Check(ctx context.Context, c *pvfs.Client, opt Options) (*Report, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	opt = opt.withDefaults()
	r := &Report{FS: c.FSName(), Began: time.Now(), Servers: len(c.Servers())}
	last, err := run(ctx, c, opt, nil)
	if err != nil {
		return nil, err
	}
	if first := last.found; len(first) > 0 {
		opt.Logger.Info("looking again at what seems wrong", "suspicions", len(first))
		if err := sleep(ctx, opt.Settle); err != nil {
			return nil, err
		}
		if last, err = run(ctx, c, opt, first); err != nil {
			return nil, err
		}
		both := inBoth(first, last.found)
		if r.Findings, err = last.confirm(ctx, both); err != nil {
			return nil, err
		}
		r.Changing = max(len(first), len(last.found)) - len(r.Findings)
	}
	r.More = last.more
	last.summarise(r)
	if r.Open, err = countOpen(ctx, c); err != nil {
		return nil, err
	}
	r.Took = time.Since(r.Began)
	return r, nil
}

// inBoth is what both passes found. Of an object without a name it also wants
// the ctime to be the same. What such an object has lost is not worth telling:
// it was being removed.
func inBoth(a, b []Finding) []Finding {
	seen := make(map[key]int64, len(a))
	for i := range a {
		seen[a[i].key()] = a[i].Ctime
	}
	both := func(f *Finding) bool {
		ctime, ok := seen[f.key()]
		return ok && ctime == f.Ctime
	}
	orphans := map[pvfs.Handle]bool{}
	for i := range b {
		if b[i].Kind == Orphan && both(&b[i]) {
			orphans[b[i].Handle] = true
		}
	}
	var out []Finding
	for i := range b {
		lost := b[i].Kind == LostDatafile || b[i].Kind == LostDirdata
		if both(&b[i]) && !(lost && orphans[b[i].From]) {
			out = append(out, b[i])
		}
	}
	slices.SortFunc(out, func(x, y Finding) int {
		return cmp.Or(cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Handle, y.Handle), cmp.Compare(x.From, y.From), cmp.Compare(x.Name, y.Name))
	})
	return out
}

func (s *scan) summarise(r *Report) {
	r.Objects = map[string]int64{}
	for _, sh := range s.t.shards {
		for _, st := range sh.state {
			switch {
			case st&reserved != 0:
				r.Objects["reserved"]++
			case st&mute != 0:
				r.Objects["unreadable"]++
			default:
				r.Objects[st.objType().String()]++
			}
		}
	}
	r.Entries, r.Bytes = s.entries.Load(), s.bytes.Load()
}

// openDir is where I/O nodes put files that lost their name while they were
// open, under 16 hex digits, among what else they must find again after a
// crash. They clean it up themselves. The name is ionserver's.
const openDir = ".zoidfs-orphans"

func countOpen(ctx context.Context, c *pvfs.Client) (int, error) {
	dir, err := c.Lookup(ctx, c.Root(), openDir)
	if isGone(err) {
		return 0, nil
	}
	n := 0
	var token pvfs.DirToken
	for eof := false; err == nil && !eof; {
		var ents []pvfs.Dirent
		ents, token, eof, err = c.ReadDir(ctx, dir, token, wire.MaxDirents)
		for _, e := range ents {
			if isHandleName(e.Name) {
				n++
			}
		}
	}
	if isGone(err) {
		err = nil
	}
	return n, err
}

func isHandleName(s string) bool {
	for _, r := range s {
		if (r < '0' || r > '9') && (r < 'a' || r > 'f') {
			return false
		}
	}
	return len(s) == 16
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
