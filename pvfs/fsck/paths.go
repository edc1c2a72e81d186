package fsck

import (
	"context"
	"path"

	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

const (
	maxPaths = 4096 // paths of directories remembered
	maxDepth = 4096 // of a directory
)

// paths finds out where things are: a pass keeps the parent of a directory but
// not its name, which is looked for in the parent.
type paths struct {
	s     *scan
	known map[pvfs.Handle]string // of directories
}

// of is the path that f is about; "" if nothing leads there from the root.
func (p *paths) of(ctx context.Context, f *Finding) (string, error) {
	switch {
	case f.Kind == Orphan:
		return "", nil
	case f.Name != "":
		return p.entry(ctx, f.From, f.Name)
	case f.From != 0 && f.Type == wire.TypeDirdata.String():
		return p.dir(ctx, f.From, 0)
	}
	for _, h := range []pvfs.Handle{f.From, f.Handle} {
		for _, r := range p.s.watch[h] {
			if r.role == asEntry {
				return p.entry(ctx, r.from, r.name)
			}
		}
	}
	return "", nil
}

func (p *paths) entry(ctx context.Context, dir pvfs.Handle, name string) (string, error) {
	at, err := p.dir(ctx, dir, 0)
	if at == "" {
		return "", err
	}
	return path.Join(at, name), nil
}

// dir is the path of a directory.
func (p *paths) dir(ctx context.Context, dir pvfs.Handle, depth int) (string, error) {
	if dir == p.s.c.Root() {
		return "/", nil
	}
	if at, ok := p.known[dir]; ok {
		return at, nil
	}
	up := p.s.tree.parentOf(dir)
	if up == 0 || depth > maxDepth {
		return "", nil
	}
	at, err := p.dir(ctx, up, depth+1)
	if err != nil || at == "" {
		return "", err
	}
	name, err := p.name(ctx, up, dir)
	if err != nil || name == "" {
		return "", err
	}
	if len(p.known) < maxPaths {
		p.known[dir] = path.Join(at, name)
	}
	return path.Join(at, name), nil
}

// name is that of the entry in dir which names h; "" if there is none.
func (p *paths) name(ctx context.Context, dir, h pvfs.Handle) (string, error) {
	var token pvfs.DirToken
	for eof := false; !eof; {
		ents, next, end, err := p.s.c.ReadDir(ctx, dir, token, wire.MaxDirents)
		if err != nil {
			if answered(err) {
				err = nil
			}
			return "", err
		}
		for _, e := range ents {
			if e.Handle == h {
				return e.Name, nil
			}
		}
		token, eof = next, end
	}
	return "", nil
}
