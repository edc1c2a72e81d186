package fsck

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

const (
	perServer = 4 // requests that a pass has under way at one server
	maxRefs   = 8 // references remembered of one object
)

// scan is one pass. Its phases follow one another, so that an object leaves the
// pool of a server before it is looked for in a file.
type scan struct {
	c    *pvfs.Client
	opt  Options
	t    *table
	tree *tree

	entries, bytes atomic.Int64

	mu    sync.Mutex
	watch map[pvfs.Handle][]ref // guarded by mu; the keys are fixed
	found []Finding             // guarded by mu
	more  int64                 // guarded by mu; suspicions beyond the limit
}

// run does a pass. It remembers who refers to the objects of the suspicions.
func run(ctx context.Context, c *pvfs.Client, opt Options, suspicions []Finding) (*scan, error) {
	s := &scan{c: c, opt: opt, t: newTable(c), watch: map[pvfs.Handle][]ref{}}
	for i := range suspicions {
		for _, h := range []pvfs.Handle{suspicions[i].Handle, suspicions[i].From} {
			if h != 0 {
				s.watch[h] = nil
			}
		}
	}
	for _, phase := range []func(context.Context, *shard) error{s.list, s.listReserved, s.readAttrs} {
		if err := s.everywhere(ctx, phase); err != nil {
			return nil, err
		}
	}
	var dirs []pvfs.Handle
	for _, sh := range s.t.shards {
		dirs = append(dirs, sh.ofType(wire.TypeDirectory)...)
	}
	s.tree = newTree(dirs)
	if err := s.everywhere(ctx, s.readDirs); err != nil {
		return nil, err
	}
	for _, refs := range s.watch { // the servers' answers came in any order
		slices.SortFunc(refs, func(a, b ref) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.name, b.name)) })
	}
	return s, s.judge(ctx)
}

// everywhere runs a phase for all servers at the same time.
func (s *scan) everywhere(ctx context.Context, phase func(context.Context, *shard) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, sh := range s.t.shards {
		g.Go(func() error {
			if err := phase(ctx, sh); err != nil {
				return fmt.Errorf("server %s: %w", sh.alias, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// list is the first phase: all objects of a server.
func (s *scan) list(ctx context.Context, sh *shard) error {
	err := s.c.EachHandle(ctx, sh.alias, false, func(hs []pvfs.Handle) error {
		sh.handles = append(sh.handles, hs...)
		return nil
	})
	sh.sort()
	return err
}

// listReserved is the second one: what the pools of a server hold, which are
// objects of any server.
func (s *scan) listReserved(ctx context.Context, sh *shard) error {
	return s.c.EachHandle(ctx, sh.alias, true, func(hs []pvfs.Handle) error {
		for _, h := range hs {
			s.t.change(h, func(st state) state { return st | reserved })
		}
		return nil
	})
}

// readAttrs is the third one: what all objects of a server are, and what files
// and directories consist of.
func (s *scan) readAttrs(ctx context.Context, sh *shard) error {
	return inChunks(ctx, sh.handles, func(ctx context.Context, hs []pvfs.Handle) error {
		use := make([]pvfs.Handle, 0, len(hs))
		for _, h := range hs {
			if st, _ := sh.change(h, func(st state) state { return st }); st&reserved == 0 {
				use = append(use, h)
			}
		}
		attrs, errs, err := s.c.Inspect(ctx, sh.alias, use)
		if err != nil {
			return err
		}
		var unknown []Finding
		for i, h := range use {
			if errs[i] != nil {
				sh.change(h, func(st state) state { return st | mute })
				continue
			}
			a := &attrs[i]
			sh.change(h, func(st state) state { return st.withType(a.Type) })
			unknown = s.parts(h, a, unknown)
		}
		return s.suspectMissing(ctx, unknown)
	})
}

// parts notes what the object h consists of, and appends what of it was not
// listed to unknown.
func (s *scan) parts(h pvfs.Handle, a *wire.Attr, unknown []Finding) []Finding {
	switch a.Type {
	case wire.TypeDatafile:
		s.bytes.Add(a.Size)
	case wire.TypeMetafile:
		for _, d := range slices.Concat(a.DFiles, a.Mirrors) {
			if d != 0 && !s.refer(d, ref{from: h, role: asDatafile}) {
				unknown = append(unknown, Finding{Kind: LostDatafile, Handle: d, From: h, Type: wire.TypeDatafile.String()})
			}
		}
	case wire.TypeDirectory:
		for _, d := range a.DistDir.Dirdata {
			if !s.refer(d, ref{from: h, role: asDirdata}) {
				unknown = append(unknown, Finding{Kind: LostDirdata, Handle: d, From: h, Type: wire.TypeDirdata.String()})
			}
		}
	}
	return unknown
}

// refer notes a reference; false if the object was not listed.
func (s *scan) refer(h pvfs.Handle, r ref) bool {
	_, known := s.t.refer(h, r.role)
	s.mu.Lock()
	defer s.mu.Unlock()
	if refs, watched := s.watch[h]; watched && len(refs) < maxRefs {
		s.watch[h] = append(refs, r)
	}
	return known
}

// readDirs is the last one: the entries of the directories on a server.
func (s *scan) readDirs(ctx context.Context, sh *shard) error {
	return inChunks(ctx, sh.ofType(wire.TypeDirectory), func(ctx context.Context, hs []pvfs.Handle) error {
		attrs, errs, err := s.c.Inspect(ctx, sh.alias, hs)
		if err != nil {
			return err
		}
		for i, h := range hs {
			if errs[i] != nil {
				continue // removed meanwhile, or else the next pass says so
			}
			if err := s.readDir(ctx, h, &attrs[i].DistDir); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *scan) readDir(ctx context.Context, dir pvfs.Handle, d *wire.DistDir) error {
	for _, b := range d.Dirdata {
		alias, ok := s.c.Owner(b)
		if !ok {
			continue
		}
		n, said, steady, err := s.readBucket(ctx, dir, b, func(ents []pvfs.Dirent) error {
			s.entries.Add(int64(len(ents)))
			return s.readEntries(ctx, dir, d, b, ents)
		})
		switch {
		case err == nil && steady && n != said:
			s.suspect(Finding{Kind: WrongCount, Handle: b, From: dir, Server: alias, Type: wire.TypeDirdata.String(),
				Detail: fmt.Sprintf("it has %d entries and counts %d", n, said)})
		case err != nil && isGone(err): // lost, and reported as such, or removed meanwhile
		case err != nil && answered(err):
			s.suspect(Finding{Kind: Unreadable, Handle: b, From: dir, Server: alias, Type: wire.TypeDirdata.String(), Detail: err.Error()})
		case err != nil:
			return err
		}
	}
	return nil
}

// readBucket calls f, which may be nil, with the entries of dirdata object b of
// dir. It returns how many there are and how many the object says there are;
// steady means that nothing seems to have changed meanwhile.
func (s *scan) readBucket(ctx context.Context, dir, b pvfs.Handle, f func([]pvfs.Dirent) error) (n, said int64, steady bool, err error) {
	before, err := s.inspect(ctx, b)
	if err != nil {
		return 0, 0, false, err
	}
	var token uint64
	for eof := false; !eof; {
		var ents []pvfs.Dirent
		if ents, token, eof, err = s.c.ReadBucket(ctx, dir, b, token); err != nil {
			return 0, 0, false, err
		}
		n += int64(len(ents))
		if f == nil {
			continue
		}
		if err := f(ents); err != nil {
			return 0, 0, false, err
		}
	}
	if n == before.DirentCount {
		return n, n, true, nil
	}
	after, err := s.inspect(ctx, b)
	steady = before.DirentCount == after.DirentCount && before.Mtime == after.Mtime
	return n, after.DirentCount, steady, err
}

func (s *scan) readEntries(ctx context.Context, dir pvfs.Handle, d *wire.DistDir, bucket pvfs.Handle, ents []pvfs.Dirent) error {
	var unknown []Finding
	for _, e := range ents {
		if !s.refer(e.Handle, ref{from: dir, name: e.Name, role: asEntry}) {
			unknown = append(unknown, Finding{Kind: Dangling, Handle: e.Handle, From: dir, Name: e.Name})
		} else if st, _ := s.t.get(e.Handle); st.objType() == wire.TypeDirectory && e.Handle != s.c.Root() {
			s.tree.setParent(e.Handle, dir)
		}
		if pvfs.BucketOf(d, e.Name) != bucket {
			s.suspect(Finding{Kind: Misfiled, Handle: e.Handle, From: dir, Name: e.Name,
				Detail: fmt.Sprintf("the entry is in dirdata %d and belongs into %d", bucket, pvfs.BucketOf(d, e.Name))})
		}
	}
	return s.suspectMissing(ctx, unknown)
}

// suspectMissing suspects those of fs whose object is not there: what was not
// listed may just be new.
func (s *scan) suspectMissing(ctx context.Context, fs []Finding) error {
	for _, f := range fs {
		alias, ok := s.c.Owner(f.Handle)
		if !ok {
			f.Detail = "the handle belongs to no server"
			s.suspect(f)
			continue
		}
		f.Server, f.Detail = alias, "the object does not exist"
		if _, err := s.inspect(ctx, f.Handle); isGone(err) {
			s.suspect(f)
		} else if err != nil && !answered(err) {
			return err
		}
	}
	return nil
}

// inspect asks the owner of h.
func (s *scan) inspect(ctx context.Context, h pvfs.Handle) (wire.Attr, error) {
	return inspect(ctx, s.c, h)
}

func inspect(ctx context.Context, c *pvfs.Client, h pvfs.Handle) (wire.Attr, error) {
	alias, ok := c.Owner(h)
	if !ok {
		return wire.Attr{}, syscall.ENOENT
	}
	attrs, errs, err := c.Inspect(ctx, alias, []pvfs.Handle{h})
	if err != nil {
		return wire.Attr{}, err
	}
	return attrs[0], errs[0]
}

// suspect notes a suspicion.
func (s *scan) suspect(f Finding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.found) >= s.opt.MaxFindings {
		s.more++
		return
	}
	s.found = append(s.found, f)
}

// answered reports whether err is what a server says of an object, and not that
// it does not answer.
func answered(err error) bool {
	for _, e := range []syscall.Errno{syscall.ENOENT, syscall.ENOTDIR, syscall.EISDIR, syscall.EINVAL, syscall.EUCLEAN, syscall.ESTALE} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// inChunks calls f with pieces of hs, several at the same time.
func inChunks(ctx context.Context, hs []pvfs.Handle, f func(ctx context.Context, hs []pvfs.Handle) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(perServer)
	for chunk := range slices.Chunk(hs, pvfs.MaxInspect) {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error { return f(ctx, chunk) })
	}
	return g.Wait()
}
