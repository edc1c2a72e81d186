package fsck

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

const (
	// DefaultGrace is how old an orphan must be before it is removed.
	DefaultGrace = 10 * time.Minute

	// untimedGrace is how long an object without times must have been an
	// orphan under our eyes. The datafiles that one server makes for the pool
	// of another are in no pool until the answer has arrived, for which servers
	// wait 30 s.
	untimedGrace = 40 * time.Second

	lostAndFound = "lost+found"

	removals = 16 // under way at the same time
)

// RepairOptions say what Repair may do. The zero value does nothing.
type RepairOptions struct {
	Orphans bool          // remove what nothing refers to
	Entries bool          // remove entries that lead nowhere
	Force   bool          // orphans of any age, too
	Grace   time.Duration // how old orphans must be without Force; 0 means DefaultGrace
}

func (o RepairOptions) grace() time.Duration { return cmp.Or(o.Grace, DefaultGrace) }

// Repairable is how many findings of r Repair would deal with, and how many
// orphans it would leave because they are too young.
func (r *Report) Repairable(o RepairOptions) (orphans, entries, young int) {
	for i := range r.Findings {
		switch f := &r.Findings[i]; {
		case f.Kind == Orphan && f.young(o, time.Now()):
			young++
		case f.Kind == Orphan:
			orphans++
		case f.Kind == Dangling:
			entries++
		}
	}
	return orphans, entries, young
}

// young reports whether f may be an object that somebody is about to name.
func (f *Finding) young(o RepairOptions, now time.Time) bool {
	return !o.Force && f.Ctime != 0 && now.Sub(time.Unix(f.Ctime, 0)) < o.grace()
}

// Repair deals with the orphans and entries among r's findings and notes in
// each what was done. Before it removes an orphan it makes sure in another pass
// that it still is one. A directory that has entries is not removed but gets a
// name in /lost+found. The error is that of a server that did not answer.
func Repair(ctx context.Context, c *pvfs.Client, r *Report, opt Options, o RepairOptions) error {
	if err := opt.Validate(); err != nil {
		return err
	}
	rep := &repair{c: c, o: o, opt: opt.withDefaults(), making: make(chan struct{}, 1)}
	if o.Entries {
		for i := range r.Findings {
			if f := &r.Findings[i]; f.Kind == Dangling && !f.Repaired {
				if err := rep.note(f, "entry removed", rep.dropEntry(ctx, f)); err != nil {
					return err
				}
			}
		}
	}
	if o.Orphans {
		return rep.removeOrphans(ctx, r)
	}
	return nil
}

type repair struct {
	c   *pvfs.Client
	opt Options
	o   RepairOptions
	now *scan // the pass before orphans are removed

	making chan struct{} // held by who looks for /lost+found and makes it
}

// note records the outcome in f; it returns err if that means that a server did
// not answer.
func (p *repair) note(f *Finding, done string, err error) error {
	var no refusal
	switch {
	case err == nil:
		f.Repaired, f.Repair = true, done
	case errors.As(err, &no), answered(err):
		f.Repair = "left: " + err.Error()
	default:
		f.Repair = "left: " + err.Error()
		return err
	}
	p.opt.Logger.Info("repair", "kind", string(f.Kind), "handle", uint64(f.Handle), "outcome", f.Repair)
	return nil
}

// refusal is why something is better left alone.
type refusal string

func (r refusal) Error() string { return string(r) }

func (p *repair) dropEntry(ctx context.Context, f *Finding) error {
	s := &scan{c: p.c, opt: p.opt}
	stands, err := s.stands(ctx, f)
	if err != nil && !isGone(err) {
		return err
	}
	if !stands {
		return refusal("it has changed")
	}
	_, err = p.c.Unlink(ctx, f.From, f.Name)
	return err
}

func (p *repair) removeOrphans(ctx context.Context, r *Report) error {
	var todo []*Finding
	wait := time.Duration(0)
	for i := range r.Findings {
		f := &r.Findings[i]
		switch {
		case f.Kind != Orphan || f.Repaired:
		case f.young(p.o, time.Now()):
			f.Repair = fmt.Sprintf("left: younger than %v", p.o.grace())
		default:
			todo = append(todo, f)
			if f.Ctime == 0 && !p.o.Force {
				wait = min(untimedGrace, p.o.grace()) - time.Since(r.Began)
			}
		}
	}
	if len(todo) == 0 {
		return nil
	}
	if wait > 0 {
		p.opt.Logger.Info("waiting, as datafiles do not tell their age", "for", wait.Round(time.Second))
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
	var suspicions []Finding
	for _, f := range todo {
		suspicions = append(suspicions, *f)
	}
	var err error
	if p.now, err = run(ctx, p.c, p.opt, suspicions); err != nil {
		return err
	}
	still := map[key]int64{}
	for i := range p.now.found {
		still[p.now.found[i].key()] = p.now.found[i].Ctime
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(removals)
	for _, f := range todo {
		ctime, ok := still[f.key()]
		if !ok || ctime != f.Ctime {
			f.Repair = "left: it has changed"
			continue
		}
		g.Go(func() error {
			done, err := p.removeOrphan(ctx, f)
			return p.note(f, done, err)
		})
	}
	return g.Wait()
}

func (p *repair) removeOrphan(ctx context.Context, f *Finding) (done string, err error) {
	done = "removed"
	switch f.Type {
	case wire.TypeMetafile.String():
		if err := p.ownsDatafiles(ctx, f.Handle); err != nil {
			return "", err
		}
		err = p.c.Destroy(ctx, f.Handle)
	case wire.TypeDirectory.String():
		if err = p.c.Destroy(ctx, f.Handle); errors.Is(err, syscall.ENOTEMPTY) {
			return p.adopt(ctx, f.Handle)
		}
	case wire.TypeSymlink.String():
		err = p.c.Destroy(ctx, f.Handle)
	default:
		err = p.c.RemoveObject(ctx, f.Handle)
	}
	if isGone(err) {
		err = nil
	}
	return done, err
}

// ownsDatafiles is a refusal if another file has a datafile of file h, too.
func (p *repair) ownsDatafiles(ctx context.Context, h pvfs.Handle) error {
	a, err := inspect(ctx, p.c, h)
	if err != nil {
		return err
	}
	for _, d := range a.DFiles {
		if st, ok := p.now.t.get(d); ok && (st.anyRefs() > 1 || st&reserved != 0) {
			return refusal(fmt.Sprintf("its datafile %d is not its alone", d))
		}
	}
	return nil
}

// adopt gives the directory h a name in /lost+found.
func (p *repair) adopt(ctx context.Context, h pvfs.Handle) (done string, err error) {
	dir, err := p.lostAndFound(ctx)
	if err != nil {
		return "", err
	}
	name := fmt.Sprintf("#%d", h)
	return "not empty, named /" + lostAndFound + "/" + name, p.c.Link(ctx, dir, name, h)
}

// lostAndFound finds or makes the directory.
func (p *repair) lostAndFound(ctx context.Context) (pvfs.Handle, error) {
	p.making <- struct{}{}
	defer func() { <-p.making }()
	dir, err := p.c.Lookup(ctx, p.c.Root(), lostAndFound)
	if !isGone(err) {
		return dir, err
	}
	a, err := p.c.Mkdir(ctx, p.c.Root(), lostAndFound, pvfs.CreateOptions{Mode: 0o700})
	return a.Handle, err
}
