// Package wire is the codec of PVFS2's protocol 7000, spoken by OrangeFS 2.9
// and 2.10: framing, requests, responses and the structures inside them.
//
// It turns values into bytes and back and does nothing else: no I/O, no
// goroutine, no lock, no clock. Values are as safe for concurrent use as any
// Go value. PROTOCOL.md beside the code has the layout on one page.
//
// Every structure describes its layout once, in a method that a codec walks in
// either direction. Decoding is strict: every length meets a named limit and
// the bytes really there before anything is allocated, padding is skipped
// unseen, and a byte left over is an error. What does not decode gives an
// error with errno EPROTO, never a panic.
//
// Source: the protocol description in PROTOCOL.md, checked against messages
// captured from OrangeFS 2.10.
package wire

// Handle is PVFS2's 64-bit name of an object, meaningful with its FSID.
type Handle uint64

// FSID names a file system.
type FSID int32

// ObjType is what an object is.
type ObjType int32

// The object types.
const (
	TypeNone      ObjType = 0
	TypeMetafile  ObjType = 1
	TypeDatafile  ObjType = 2
	TypeDirectory ObjType = 4
	TypeSymlink   ObjType = 8
	TypeDirdata   ObjType = 16 // one bucket of a directory's entries
	TypeInternal  ObjType = 32
)

// String is the type's name in the protocol.
func (t ObjType) String() string {
	switch t {
	case TypeNone:
		return "none"
	case TypeMetafile:
		return "metafile"
	case TypeDatafile:
		return "datafile"
	case TypeDirectory:
		return "directory"
	case TypeSymlink:
		return "symlink"
	case TypeDirdata:
		return "dirdata"
	case TypeInternal:
		return "internal"
	}
	return "unknown"
}

// Version is the protocol version: major times 1000 plus minor.
const Version = 7000

// encodingLE is the only encoding: little-endian byte fields.
const encodingLE = 2

// Limits of the protocol. A decoder refuses what is beyond them.
const (
	MaxRequest    = 16384   // bytes of a request's payload, SMALL_IO data included
	MaxEager      = 16384   // bytes of an EAGER payload; longer ones go as REND
	MaxMessage    = 1 << 24 // bytes of any payload
	MaxPath       = 4096    // bytes of a path or symlink target, without NUL
	MaxName       = 255     // bytes of one name, without NUL
	MaxAddr       = 512     // bytes of one server address
	MaxIssuer     = 255     // bytes of a capability's or credential's issuer
	MaxSignature  = 1024    // bytes of a signature
	MaxCert       = 8192    // bytes of a certificate
	MaxGroups     = 32      // groups in a credential
	MaxHints      = 32      // hints in a request
	MaxCapHandles = 8192    // handles in a capability
	MaxDFiles     = 1024    // datafiles of a file
	MaxMirrors    = 8192    // mirror datafiles of a file
	MaxDirdata    = 1024    // dirdata objects of a directory
	MaxDistName   = 32      // bytes of a distribution's name
	MaxDistParams = 1024    // bytes of a distribution's parameters as text
	MaxLayout     = 1024    // servers in a layout
	MaxExtents    = 512     // handle ranges in an extent array
	MaxSegments   = 40      // segments of a path that one lookup resolves
	MaxDirents    = 512     // entries in a READDIR reply
	MaxListAttr   = 60      // handles in a LISTATTR
	MaxBatch      = 8192    // handles in a BATCH_CREATE or BATCH_REMOVE
	MaxTree       = 1024    // handles in a TREE_* request
	MaxEattrs     = 16      // extended attributes in a GETEATTR or SETEATTR
	MaxEattrList  = 1024    // keys in a LISTEATTR
	MaxEattrKey   = 256     // bytes of a key, NUL included
	MaxEattrValue = 8192    // bytes of a value
	MaxConfig     = 65536   // bytes of the configuration text
	MaxNested     = 100     // records of a Datatype below its root
	MaxMgmt       = 65536   // elements of a monitoring reply
	MaxParam      = 4096    // bytes of a MGMT_SETPARAM text
)

// The first and last position of READDIR and LISTEATTR. Other tokens are
// opaque; only the low 48 bits go back to the server.
const (
	TokenStart uint64 = 0x7ffffffe
	TokenEnd   uint64 = 0x7ffffffd
)
