package fs

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/cache/names"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// The changes of names by this mount. The times of a directory change with its
// entries, at its home, so its attributes are those that come with the answer.

// make runs f, which makes something under a name in dir and returns it.
// unwanted is called with what was made if nobody waits for it any more.
func (k *known) make(ctx context.Context, dir uint64, name string, f func(context.Context) (ionclient.Changed, error), unwanted func(context.Context, ionclient.Attr, error)) (ionclient.Attr, error) {
	return ionclient.Outlive(ctx, k.client, func(ctx context.Context) (ionclient.Attr, error) {
		defer k.kept.ChangingEntry(dir, name)()
		since := k.kept.Now()
		made, err := f(ctx)
		k.setDir(dir, made.Dir, since)
		a := made.Attr
		if err != nil {
			k.kept.DropEntry(dir, name)
			return a, err
		}
		k.kept.SetEntry(dir, name, entryOf(&a), since)
		k.putAttr(a, since)
		return a, nil
	}, unwanted)
}

// setDir takes over the attributes that a change of an entry, begun at since, has
// given the directory; nil if they are not known.
func (k *known) setDir(dir uint64, a *ionclient.Attr, since names.Mark) {
	if a == nil {
		k.kept.DropAttr(dir)
		return
	}
	k.setAttr(*a, since)
}

func leave(context.Context, ionclient.Attr, error) {}

// Create makes a file, EEXIST if the name is taken.
func (k *known) Create(ctx context.Context, dir uint64, name string, mode, uid, gid uint32) (ionclient.Attr, error) {
	return k.make(ctx, dir, name, func(ctx context.Context) (ionclient.Changed, error) {
		return k.client.Create(ctx, dir, name, mode, uid, gid)
	}, leave)
}

// CreateOpen is Create, and opens the file.
func (k *known) CreateOpen(ctx context.Context, dir uint64, name string, mode, uid, gid uint32) (ionclient.Attr, error) {
	return k.make(ctx, dir, name, func(ctx context.Context) (ionclient.Changed, error) {
		a, err := k.client.CreateOpen(ctx, dir, name, mode, uid, gid)
		if err == nil {
			k.opens.add(a.Handle, 1, 1)
		}
		return a, err
	}, k.closeUnwanted)
}

// Mkdir makes a directory.
func (k *known) Mkdir(ctx context.Context, dir uint64, name string, mode, uid, gid uint32) (ionclient.Attr, error) {
	return k.make(ctx, dir, name, func(ctx context.Context) (ionclient.Changed, error) {
		return k.client.Mkdir(ctx, dir, name, mode, uid, gid)
	}, leave)
}

// Symlink makes a symbolic link.
func (k *known) Symlink(ctx context.Context, dir uint64, name, target string, uid, gid uint32) (ionclient.Attr, error) {
	return k.make(ctx, dir, name, func(ctx context.Context) (ionclient.Changed, error) {
		return k.client.Symlink(ctx, dir, name, target, uid, gid)
	}, leave)
}

// remove runs f, which removes a name, that of h perhaps.
func (k *known) remove(ctx context.Context, dir uint64, name string, h uint64, f func(context.Context) (ionclient.Removed, error)) error {
	_, err := change(ctx, k, func(ctx context.Context) (struct{}, error) {
		defer k.kept.ChangingEntry(dir, name)()
		defer k.kept.Changing(h)()
		since := k.kept.Now()
		gone, err := f(ctx)
		k.setDir(dir, gone.Dir, since)
		if err != nil {
			k.kept.DropEntry(dir, name)
			return struct{}{}, err
		}
		k.kept.SetEntry(dir, name, names.Entry{}, since)
		k.kept.Forget(gone.Handle)
		return struct{}{}, nil
	})
	return err
}

// Unlink removes a name that is no directory, and meant h when it was seen last;
// 0: it was not.
func (k *known) Unlink(ctx context.Context, dir uint64, name string, h uint64) error {
	return k.remove(ctx, dir, name, h, func(ctx context.Context) (ionclient.Removed, error) {
		done, err := k.vouch(ctx, h)
		defer done()
		if err != nil {
			return ionclient.Removed{}, err
		}
		return k.client.Unlink(ctx, dir, name, h)
	})
}

// Rmdir removes an empty directory; h is as for Unlink.
func (k *known) Rmdir(ctx context.Context, dir uint64, name string, h uint64) error {
	return k.remove(ctx, dir, name, h, func(ctx context.Context) (ionclient.Removed, error) {
		return k.client.Rmdir(ctx, dir, name, h)
	})
}

// Rename moves a name; flags are those of renameat2(2).
func (k *known) Rename(ctx context.Context, old, new ionclient.Name, flags uint32) error {
	oldDir, oldName, newDir, newName := old.Dir, old.Name, new.Dir, new.Name
	_, err := change(ctx, k, func(ctx context.Context) (struct{}, error) {
		done, err := k.vouch(ctx, new.Handle)
		defer done()
		if err != nil {
			return struct{}{}, err
		}
		from, _ := k.kept.Entry(oldDir, oldName)
		to, _ := k.kept.Entry(newDir, newName)
		defer k.kept.ChangingEntry(oldDir, oldName)()
		defer k.kept.ChangingEntry(newDir, newName)()
		defer k.kept.Changing(old.Handle)()
		defer k.kept.Changing(new.Handle)()
		since := k.kept.Now()
		r, err := k.client.Rename(ctx, old, new, flags)
		k.kept.DropAttr(oldDir)
		k.kept.DropAttr(newDir)
		switch exchange := flags&unix.RENAME_EXCHANGE != 0; {
		case err != nil || r.Moved == 0:
			k.kept.DropEntry(oldDir, oldName)
			k.kept.DropEntry(newDir, newName)
		case oldDir == newDir && oldName == newName:
		case exchange:
			k.kept.SetEntry(newDir, newName, typed(r.Moved, from), since)
			k.kept.SetEntry(oldDir, oldName, typed(r.Replaced, to), since)
		default:
			k.kept.SetEntry(newDir, newName, typed(r.Moved, from), since)
			k.kept.SetEntry(oldDir, oldName, names.Entry{}, since)
			k.kept.Forget(r.Replaced)
		}
		k.kept.DropAttr(r.Moved)
		k.kept.DropAttr(r.Replaced)
		return struct{}{}, err
	})
	return err
}

// typed is the entry of an inode, with its type if was is it.
func typed(h uint64, was names.Entry) names.Entry {
	if was.Handle == h {
		return was
	}
	return names.Entry{Handle: h}
}
