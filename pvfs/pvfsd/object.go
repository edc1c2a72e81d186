package pvfsd

import (
	"encoding/binary"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// permMask is the permission bits that are kept: rwxrwxrwx, sticky, setgid, setuid.
const permMask = 0o7777

// object is what the store keeps of one object. Which fields count follows
// from typ; a datafile has none but typ.
type object struct {
	typ                 wire.ObjType
	uid, gid, perms     uint32
	atime, mtime, ctime int64 // seconds since the epoch

	// Metafile.
	stuffed bool
	flags   uint64 // wire.FlagImmutable and so on
	dist    wire.Dist
	dfiles  []wire.Handle
	want    uint32 // datafiles once unstuffed
	layout  wire.Layout

	// Directory: its first dirdata. Dirdata: its directory.
	other wire.Handle

	// Directory and dirdata: nil if the directory has no other dirdata.
	buckets *buckets

	// Dirdata.
	entries int64
	lastSeq uint64 // of the newest entry ever

	// Symlink.
	target string
}

// The record of an object, little-endian, lengths and counts as uvarints:
//
//	u8 1, or 2 with buckets; u8 type
//	but for datafiles: u32 uid, gid, perms; i64 atime, mtime, ctime
//	metafile:  u8 stuffed; u64 flags; bytes dist; n, u64 handle[n]; u32 want
//	           u8 layout; n, bytes address[n]
//	directory: u64 dirdata
//	dirdata:   u64 directory; i64 entries; u64 last sequence number
//	symlink:   bytes target
//	buckets:   of a directory or dirdata, see buckets.go
const (
	objectVersion = 1
	spreadVersion = 2
)

func (o *object) encode() []byte {
	le := binary.LittleEndian
	b := append(make([]byte, 0, 128), objectVersion, byte(o.typ))
	if o.typ == wire.TypeDatafile {
		return b
	}
	b = le.AppendUint32(b, o.uid)
	b = le.AppendUint32(b, o.gid)
	b = le.AppendUint32(b, o.perms)
	b = le.AppendUint64(b, uint64(o.atime))
	b = le.AppendUint64(b, uint64(o.mtime))
	b = le.AppendUint64(b, uint64(o.ctime))
	switch o.typ {
	case wire.TypeMetafile:
		b = o.encodeMetafile(b)
	case wire.TypeDirectory:
		b = le.AppendUint64(b, uint64(o.other))
	case wire.TypeDirdata:
		b = le.AppendUint64(b, uint64(o.other))
		b = le.AppendUint64(b, uint64(o.entries))
		b = le.AppendUint64(b, o.lastSeq)
	case wire.TypeSymlink:
		b = appendBytes(b, o.target)
	}
	if o.buckets != nil {
		b[0] = spreadVersion
		b = o.buckets.encode(b)
	}
	return b
}

func (o *object) encodeMetafile(b []byte) []byte {
	le := binary.LittleEndian
	stuffed := byte(0)
	if o.stuffed {
		stuffed = 1
	}
	b = append(b, stuffed)
	b = le.AppendUint64(b, o.flags)
	var dist []byte
	if o.dist.Name != "" {
		dist = wire.AppendDist(nil, &o.dist)
	}
	b = appendBytes(b, dist)
	b = binary.AppendUvarint(b, uint64(len(o.dfiles)))
	for _, h := range o.dfiles {
		b = le.AppendUint64(b, uint64(h))
	}
	b = le.AppendUint32(b, o.want)
	b = append(b, byte(o.layout.Type))
	b = binary.AppendUvarint(b, uint64(len(o.layout.Servers)))
	for _, s := range o.layout.Servers {
		b = appendBytes(b, s)
	}
	return b
}

func appendBytes[T ~string | ~[]byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// record reads what encode wrote. After the first failure it gives zeros.
type record struct {
	b   []byte
	bad bool
}

func (r *record) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

func (r *record) u8() byte {
	if p := r.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (r *record) u32() uint32 {
	if p := r.take(4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

func (r *record) u64() uint64 {
	if p := r.take(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

func (r *record) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.take(uint64(n))
	return v
}

func (r *record) bytes() []byte { return r.take(r.uvarint()) }

// count is a number of elements of at least size bytes each.
func (r *record) count(size int) int {
	n := r.uvarint()
	if r.bad || n > uint64(len(r.b)/size) {
		r.bad = true
		return 0
	}
	return int(n)
}

// decodeObject decodes a record; ok is false if it is damaged. The object
// shares no memory with b.
func decodeObject(b []byte) (o *object, ok bool) {
	r := &record{b: b}
	version := r.u8()
	if version != objectVersion && version != spreadVersion {
		return nil, false
	}
	o = &object{typ: wire.ObjType(r.u8())}
	if o.typ != wire.TypeDatafile {
		o.uid, o.gid, o.perms = r.u32(), r.u32(), r.u32()
		o.atime, o.mtime, o.ctime = int64(r.u64()), int64(r.u64()), int64(r.u64())
	}
	switch o.typ {
	case wire.TypeMetafile:
		o.decodeMetafile(r)
	case wire.TypeDirectory:
		o.other = wire.Handle(r.u64())
	case wire.TypeDirdata:
		o.other, o.entries, o.lastSeq = wire.Handle(r.u64()), int64(r.u64()), r.u64()
	case wire.TypeSymlink:
		o.target = string(r.bytes())
	}
	if version == spreadVersion {
		r.bad = r.bad || o.typ != wire.TypeDirectory && o.typ != wire.TypeDirdata
		o.buckets = decodeBuckets(r)
	}
	return o, !r.bad && len(r.b) == 0
}

func (o *object) decodeMetafile(r *record) {
	o.stuffed = r.u8() != 0
	o.flags = r.u64()
	if dist := r.bytes(); len(dist) > 0 {
		var err error
		if o.dist, err = wire.DecodeDist(dist); err != nil {
			r.bad = true
		}
	}
	o.dfiles = make([]wire.Handle, r.count(8))
	for i := range o.dfiles {
		o.dfiles[i] = wire.Handle(r.u64())
	}
	o.want = r.u32()
	o.layout.Type = wire.LayoutType(r.u8())
	if n := r.count(1); n > 0 {
		o.layout.Servers = make([]string, n)
	}
	for i := range o.layout.Servers {
		o.layout.Servers[i] = string(r.bytes())
	}
}

// object returns the object h; ENOENT when there is none.
func (t *txn) object(h wire.Handle) (*object, error) {
	v := t.get(bucketObjects, handleKey(h))
	if v == nil {
		return nil, errno.New("pvfsd.object", syscall.ENOENT)
	}
	o, ok := decodeObject(v)
	if !ok {
		return nil, errCorrupt("the object", h)
	}
	return o, nil
}

// typed returns the object h if it is of type typ; ENOENT when there is none,
// and an errno that says what it is instead otherwise.
func (t *txn) typed(h wire.Handle, typ wire.ObjType) (*object, error) {
	o, err := t.object(h)
	if err != nil || o.typ == typ {
		return o, err
	}
	switch {
	case typ == wire.TypeDirectory || typ == wire.TypeDirdata:
		return nil, errno.New("pvfsd.object", syscall.ENOTDIR)
	case o.typ == wire.TypeDirectory:
		return nil, errno.New("pvfsd.object", syscall.EISDIR)
	}
	return nil, errno.New("pvfsd.object", syscall.EINVAL)
}

func (t *txn) putObject(h wire.Handle, o *object) error {
	key := handleKey(h)
	if t.get(bucketObjects, key) == nil {
		if err := t.setObjects(t.objects() + 1); err != nil {
			return err
		}
	}
	return t.put(bucketObjects, key, o.encode())
}

// delObject deletes an object that is there.
func (t *txn) delObject(h wire.Handle) error {
	if err := t.setObjects(t.objects() - 1); err != nil {
		return err
	}
	return t.del(bucketObjects, handleKey(h))
}

var keyObjects = []byte("objects")

// objects is the number of objects.
func (t *txn) objects() uint64 {
	if b := t.get(bucketIdentity, keyObjects); len(b) == 8 {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (t *txn) setObjects(n uint64) error {
	return t.put(bucketIdentity, keyObjects, binary.BigEndian.AppendUint64(nil, n))
}

// isDatafile is ENOENT unless h is a datafile.
func (t *txn) isDatafile(h wire.Handle) error {
	v := t.get(bucketObjects, handleKey(h))
	switch {
	case v == nil:
		return errno.New("pvfsd.datafile", syscall.ENOENT)
	case len(v) < 2 || v[0] != objectVersion || wire.ObjType(v[1]) != wire.TypeDatafile:
		return errno.New("pvfsd.datafile", syscall.EINVAL)
	}
	return nil
}

// remove deletes the object h with its extended attributes and, of a
// directory, its dirdata. A directory with entries is ENOTEMPTY, one with
// buckets errSpread. The bytestream of a datafile goes to the trash.
func (t *txn) remove(h wire.Handle) error {
	o, err := t.object(h)
	if err != nil {
		return err
	}
	switch o.typ {
	case wire.TypeDirectory:
		d, err := t.dirdata(o.other)
		if err != nil {
			return err
		}
		if d.entries != 0 {
			return errno.New("pvfsd.remove", syscall.ENOTEMPTY)
		}
		if o.buckets != nil {
			return errSpread
		}
		if err := t.delObject(o.other); err != nil {
			return err
		}
	case wire.TypeDatafile:
		if err := t.put(bucketTrash, handleKey(h), nil); err != nil {
			return err
		}
	case wire.TypeDirdata:
		if err := t.clearDirdata(h, o); err != nil {
			return err
		}
	}
	if err := t.delObject(h); err != nil {
		return err
	}
	return t.removeEattrs(h)
}
