package fsck

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// judge suspects what the references to each object show.
func (s *scan) judge(ctx context.Context) error {
	for _, sh := range s.t.shards {
		for i, h := range sh.handles {
			if f, bad := s.verdict(sh.alias, h, sh.state[i]); bad {
				f.Handle, f.Server = h, sh.alias
				s.suspect(f)
			}
		}
	}
	for _, h := range s.tree.rings() {
		alias, _ := s.c.Owner(h)
		s.suspect(Finding{Kind: Detached, Handle: h, Server: alias, Type: wire.TypeDirectory.String(),
			Detail: "the directory contains itself and hangs on nothing else"})
	}
	return s.ages(ctx)
}

// verdict is what is wrong with one object that server alias keeps.
func (s *scan) verdict(alias string, h pvfs.Handle, st state) (f Finding, bad bool) {
	f.Type = st.objType().String()
	refs := st.anyRefs()
	owner, ok := s.c.Owner(h)
	switch {
	case !ok || owner != alias:
		f.Kind, f.Detail = Misplaced, "the handle belongs to no server"
		if ok {
			f.Detail = "the handle belongs to server " + owner
		}
		return f, true
	case st&reserved != 0:
		f.Kind, f.Type, f.Detail = Shared, "", "it is in use and also held in reserve for new files"
		return f, refs > 0
	case st&mute != 0:
		f.Kind, f.Type, f.Detail = Unreadable, "", "its server lists it and does not tell what it is"
		return f, true
	case st.objType() == wire.TypeInternal:
		return f, false
	}
	fitting := 0
	for r := range roles {
		if r.fits(st.objType()) {
			fitting += st.refs(r)
		} else if st.refs(r) > 0 {
			f.Kind, f.Detail = WrongType, fmt.Sprintf("it is referred to as %v", r)
			return f, true
		}
	}
	if h == s.c.Root() {
		fitting++
	}
	switch {
	case fitting == 0:
		f.Kind, f.Detail = Orphan, "nothing refers to it"
	case fitting > 1:
		f.Kind, f.Detail = Shared, "it is referred to more than once"
	}
	return f, fitting != 1
}

// ages fills in what is known of orphans: when they changed and what they hold.
// Those that are gone meanwhile keep a ctime of 0 and will not be seen again.
func (s *scan) ages(ctx context.Context) error {
	byServer := map[string][]int{}
	for i := range s.found {
		if f := &s.found[i]; f.Kind == Orphan {
			byServer[f.Server] = append(byServer[f.Server], i)
		}
	}
	return s.everywhere(ctx, func(ctx context.Context, sh *shard) error {
		for idx := range slices.Chunk(byServer[sh.alias], pvfs.MaxInspect) {
			hs := make([]pvfs.Handle, len(idx))
			for j, i := range idx {
				hs[j] = s.found[i].Handle
			}
			attrs, errs, err := s.c.Inspect(ctx, sh.alias, hs)
			if err != nil {
				return err
			}
			for j, i := range idx {
				if errs[j] == nil {
					s.found[i].Ctime = attrs[j].Ctime
					s.found[i].Bytes = attrs[j].Size + int64(attrs[j].StuffedSize)
				}
			}
		}
		return nil
	})
}

// confirm returns those of fs that stand when asked for by themselves, with
// paths.
func (s *scan) confirm(ctx context.Context, fs []Finding) ([]Finding, error) {
	p := paths{s: s, known: map[pvfs.Handle]string{}}
	pooled, err := s.pooled(ctx, fs)
	if err != nil {
		return nil, err
	}
	out := []Finding{}
	for i := range fs {
		f := fs[i]
		if f.Kind == Orphan && pooled[f.Handle] {
			continue
		}
		stands, err := s.stands(ctx, &f)
		if err != nil && !isGone(err) {
			return nil, err
		}
		if !stands || err != nil {
			continue
		}
		if f.Path, err = p.of(ctx, &f); err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

// pooled is those orphans among fs that are in a pool by now. What one server
// makes for the pool of another may take a moment to get there, so if there are
// orphans it waits before it looks.
func (s *scan) pooled(ctx context.Context, fs []Finding) (map[pvfs.Handle]bool, error) {
	orphans := map[pvfs.Handle]bool{}
	for i := range fs {
		if fs[i].Kind == Orphan {
			orphans[fs[i].Handle] = false
		}
	}
	if len(orphans) == 0 {
		return nil, nil
	}
	if err := sleep(ctx, s.opt.Settle); err != nil {
		return nil, err
	}
	for _, sh := range s.t.shards {
		err := s.c.EachHandle(ctx, sh.alias, true, func(hs []pvfs.Handle) error {
			for _, h := range hs {
				if _, ok := orphans[h]; ok {
					orphans[h] = true
				}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("server %s: %w", sh.alias, err)
		}
	}
	return orphans, nil
}

// stands reports whether f is still true.
func (s *scan) stands(ctx context.Context, f *Finding) (bool, error) {
	switch f.Kind {
	case Orphan:
		a, err := s.inspect(ctx, f.Handle)
		if err == nil && a.Type == wire.TypeMetafile && !a.Stuffed() {
			f.Bytes, err = s.bytesOf(ctx, a.DFiles)
		}
		return a.Ctime == f.Ctime, err
	case Dangling:
		if ok, err := s.refers(ctx, ref{from: f.From, name: f.Name}, f.Handle); !ok {
			return false, err
		}
		return s.missing(ctx, f.Handle)
	case LostDatafile, LostDirdata:
		r := ref{from: f.From, role: asDatafile}
		if f.Kind == LostDirdata {
			r.role = asDirdata
		}
		if ok, err := s.refers(ctx, r, f.Handle); !ok {
			return false, err
		}
		return s.missing(ctx, f.Handle)
	case Shared, WrongType:
		return s.confirmRefs(ctx, f)
	case WrongCount:
		return s.recount(ctx, f)
	}
	return true, nil
}

func (s *scan) missing(ctx context.Context, h pvfs.Handle) (bool, error) {
	_, err := s.inspect(ctx, h)
	if isGone(err) {
		return true, nil
	}
	return false, err
}

// bytesOf is what datafiles hold; those that are gone hold nothing.
func (s *scan) bytesOf(ctx context.Context, dfiles []pvfs.Handle) (n int64, err error) {
	for _, d := range dfiles {
		a, err := s.inspect(ctx, d)
		if err != nil && !answered(err) {
			return 0, err
		}
		n += a.Size
	}
	return n, nil
}

// refers reports whether r still refers to h.
func (s *scan) refers(ctx context.Context, r ref, h pvfs.Handle) (bool, error) {
	a, err := s.inspect(ctx, r.from)
	if isGone(err) {
		return false, nil
	}
	switch {
	case err != nil:
		return false, err
	case r.role == asDirdata:
		return slices.Contains(a.DistDir.Dirdata, h), nil
	case r.role == asDatafile:
		return slices.Contains(a.DFiles, h) || slices.Contains(a.Mirrors, h), nil
	}
	got, err := s.c.FindEntry(ctx, pvfs.BucketOf(&a.DistDir, r.name), r.name)
	if isGone(err) || errors.Is(err, syscall.EAGAIN) {
		return s.inAnyBucket(ctx, r, h, &a.DistDir)
	}
	return got == h, err
}

// inAnyBucket looks for an entry that lookups do not find.
func (s *scan) inAnyBucket(ctx context.Context, r ref, h pvfs.Handle, d *wire.DistDir) (bool, error) {
	if len(d.Dirdata) < 2 {
		return false, nil
	}
	found := false
	for _, b := range d.Dirdata {
		_, _, _, err := s.readBucket(ctx, r.from, b, func(ents []pvfs.Dirent) error {
			found = found || slices.Contains(ents, pvfs.Dirent{Name: r.name, Handle: h})
			return nil
		})
		if err != nil && !answered(err) {
			return false, err
		}
	}
	return found, nil
}

// confirmRefs looks for the references to a shared or mistaken object again and
// names them.
func (s *scan) confirmRefs(ctx context.Context, f *Finding) (bool, error) {
	var names []string
	n := 0
	for _, r := range s.watch[f.Handle] {
		ok, err := s.refers(ctx, r, f.Handle)
		if err != nil && !answered(err) {
			return false, err
		}
		if ok {
			names = append(names, r.String())
			n++
		}
	}
	f.Detail += ": " + strings.Join(names, ", ")
	st, _ := s.t.get(f.Handle)
	if f.Kind == WrongType || st&reserved != 0 || f.Handle == s.c.Root() {
		return n > 0, nil
	}
	return n > 1, nil
}

func (s *scan) recount(ctx context.Context, f *Finding) (bool, error) {
	a, err := s.inspect(ctx, f.From)
	if err != nil {
		return false, err
	}
	if !slices.Contains(a.DistDir.Dirdata, f.Handle) {
		return false, nil
	}
	n, said, steady, err := s.readBucket(ctx, f.From, f.Handle, nil)
	return steady && n != said, err
}
