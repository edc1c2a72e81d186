package pvfsd

import (
	"encoding/binary"
	"errors"
	"strings"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// Every entry of a directory has a sequence number that its dirdata object
// gives out and never gives again. READDIR goes by it, and its token is the
// number of the last entry returned: entries that stay are neither skipped nor
// repeated, whatever is inserted or removed meanwhile.
//
// Tokens have 48 bits, as clients use the upper ones for themselves.
const tokenMask = 1<<48 - 1

// nextSeq is the sequence number after seq that is no token with a meaning.
func nextSeq(seq uint64) uint64 {
	seq++
	if seq == wire.TokenEnd || seq == wire.TokenStart {
		seq = max(wire.TokenEnd, wire.TokenStart) + 1
	}
	return seq
}

func nameKey(dirdata wire.Handle, name string) []byte {
	return append(handleKey(dirdata), name...)
}

func orderKey(dirdata wire.Handle, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(handleKey(dirdata), seq)
}

// checkName refuses what cannot be the name of an entry.
func checkName(name string) error {
	switch {
	case name == "", name == ".", name == "..", strings.ContainsAny(name, "/\x00"):
		return errno.New("pvfsd.name", syscall.EINVAL)
	case len(name) > wire.MaxName:
		return errno.New("pvfsd.name", syscall.ENAMETOOLONG)
	}
	return nil
}

// lookup finds name in a dirdata object; ENOENT when there is none.
func (t *txn) lookup(dirdata wire.Handle, name string) (h wire.Handle, seq uint64, err error) {
	v := t.get(bucketNames, nameKey(dirdata, name))
	switch {
	case v == nil:
		return 0, 0, errno.New("pvfsd.lookup", syscall.ENOENT)
	case len(v) != 16:
		return 0, 0, errCorrupt("an entry", dirdata)
	}
	return wire.Handle(binary.BigEndian.Uint64(v[8:])), binary.BigEndian.Uint64(v), nil
}

// putEntry writes the entry name -> h with sequence number seq.
func (t *txn) putEntry(dirdata wire.Handle, name string, h wire.Handle, seq uint64) error {
	v := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, seq), uint64(h))
	if err := t.put(bucketNames, nameKey(dirdata, name), v); err != nil {
		return err
	}
	return t.put(bucketOrder, orderKey(dirdata, seq), append(handleKey(h), name...))
}

// dirdata returns the dirdata object h; ENOENT when there is none, ENOTDIR
// when h is something else.
func (t *txn) dirdata(h wire.Handle) (*object, error) { return t.typed(h, wire.TypeDirdata) }

// link adds the entry name -> target; EEXIST when name is taken. full says that
// the bucket should split.
func (t *txn) link(dirdata wire.Handle, name string, target wire.Handle, now int64) (full bool, err error) {
	o, err := t.dirdata(dirdata)
	if err != nil {
		return false, err
	}
	if err := errors.Join(t.checkBucket(dirdata, o, name), t.checkOpen(dirdata, o, now)); err != nil {
		return false, err
	}
	if t.get(bucketNames, nameKey(dirdata, name)) != nil {
		return false, errno.New("pvfsd.link", syscall.EEXIST)
	}
	o.mtime, o.ctime = now, now
	if err := t.appendEntry(dirdata, o, name, target); err != nil {
		return false, err
	}
	return o.full(), t.putObject(dirdata, o)
}

// appendEntry adds the entry name -> target, which is not there, behind all
// others of the dirdata object o, which the caller stores.
func (t *txn) appendEntry(dirdata wire.Handle, o *object, name string, target wire.Handle) error {
	seq := nextSeq(o.lastSeq)
	if seq > tokenMask {
		return errno.New("pvfsd.link", syscall.ENOSPC)
	}
	o.lastSeq = seq
	o.entries++
	return t.putEntry(dirdata, name, target, seq)
}

// delEntry deletes the entry name of number seq of the dirdata object o, which
// the caller stores.
func (t *txn) delEntry(dirdata wire.Handle, o *object, name string, seq uint64) error {
	o.entries--
	if err := t.del(bucketNames, nameKey(dirdata, name)); err != nil {
		return err
	}
	return t.del(bucketOrder, orderKey(dirdata, seq))
}

// unlink removes the entry name and returns what it named.
func (t *txn) unlink(dirdata wire.Handle, name string, now int64) (wire.Handle, error) {
	o, err := t.dirdata(dirdata)
	if err != nil {
		return 0, err
	}
	if err := t.checkBucket(dirdata, o, name); err != nil {
		return 0, err
	}
	old, seq, err := t.lookup(dirdata, name)
	if err != nil {
		return 0, err
	}
	o.mtime, o.ctime = now, now
	if err := t.delEntry(dirdata, o, name, seq); err != nil {
		return 0, err
	}
	return old, t.putObject(dirdata, o)
}

// relink makes the entry name, which keeps its place, name target, and returns
// what it named before.
func (t *txn) relink(dirdata wire.Handle, name string, target wire.Handle, now int64) (wire.Handle, error) {
	o, err := t.dirdata(dirdata)
	if err != nil {
		return 0, err
	}
	if err := t.checkBucket(dirdata, o, name); err != nil {
		return 0, err
	}
	old, seq, err := t.lookup(dirdata, name)
	if err != nil {
		return 0, err
	}
	o.mtime, o.ctime = now, now
	if err := t.putEntry(dirdata, name, target, seq); err != nil {
		return 0, err
	}
	return old, t.putObject(dirdata, o)
}

// list returns up to count entries after the one that token stands for, and
// the token to go on with: TokenEnd when there were fewer than count.
func (t *txn) list(dirdata wire.Handle, token uint64, count int) (ents []wire.Dirent, next uint64, err error) {
	token &= tokenMask
	if token == wire.TokenEnd {
		return nil, wire.TokenEnd, nil
	}
	if token == wire.TokenStart {
		token = 0
	}
	next = token
	if token == 0 {
		next = wire.TokenStart
	}
	prefix := string(handleKey(dirdata))
	c := t.cursor(bucketOrder)
	for k, v := c.Seek(orderKey(dirdata, token+1)); len(ents) < count; k, v = c.Next() {
		if !strings.HasPrefix(string(k), prefix) {
			return ents, wire.TokenEnd, nil
		}
		h, ok := handleOf(v)
		if len(k) != 16 || !ok {
			return nil, 0, errCorrupt("an entry", dirdata)
		}
		ents = append(ents, wire.Dirent{Name: string(v[8:]), Handle: h})
		next = binary.BigEndian.Uint64(k[8:])
	}
	return ents, next, nil
}
