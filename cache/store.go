package cache

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/ristretto/v2"

	"github.com/zoidfs/zoidfs/internal/buf"
	"github.com/zoidfs/zoidfs/internal/shared"
)

// DefaultBlockSize is the BlockSize of the zero Options.
const DefaultBlockSize = 64 << 10

const (
	minBlocks   = 8  // how few blocks a store may have
	freeShare   = 32 // of all blocks that are kept free, the part
	recentShare = 12 // the part that stay for having been used last, however often others were
)

// Options are the sizes of a store.
type Options struct {
	Bytes     int64 // memory for all blocks; at least 8 of them
	BlockSize int   // a power of two, at least 512; 0: DefaultBlockSize
	MaxDirty  int64 // memory for blocks with bytes to be written; 0: half of Bytes

	// Memory is where the blocks lie, as many as there is room for; Bytes is not
	// looked at then. It belongs to the store. nil: memory of its own.
	Memory *shared.Region
}

func (o Options) withDefaults() Options {
	if o.BlockSize == 0 {
		o.BlockSize = DefaultBlockSize
	}
	if o.Memory != nil {
		o.Bytes = int64(len(o.Memory.Bytes()))
	}
	if o.MaxDirty == 0 {
		o.MaxDirty = o.Bytes / 2
	}
	return o
}

// Validate names the field that is wrong.
func (o Options) Validate() error {
	o = o.withDefaults()
	switch bs := int64(o.BlockSize); {
	case bs < 512 || bs > 1<<30 || bs&(bs-1) != 0:
		return fmt.Errorf("BlockSize %d: want a power of two from 512 on", o.BlockSize)
	case o.Bytes < minBlocks*bs || o.Bytes > math.MaxInt/2:
		return fmt.Errorf("Bytes %d: want room for at least %d blocks of %d", o.Bytes, minBlocks, bs)
	case o.MaxDirty < bs || o.MaxDirty > o.Bytes:
		return fmt.Errorf("MaxDirty %d: want from one block up to Bytes", o.MaxDirty)
	}
	return nil
}

// Store is the memory that the files of a process share.
type Store struct {
	size       int64          // of a block
	perRow     int64          // blocks of a row
	blocks     []block        // all of them
	memory     []byte         // what they lie in
	region     *shared.Region // that memory is of, or nil
	zeros      []byte         // as many as a block has bytes
	maxUnclean int
	keep       int // blocks that are kept free
	recentRoom int // clean blocks that recent has room for
	policy     *ristretto.Cache[uint64, ticket]
	pool       buf.Pool // memory for what finds no block
	pressure   chan struct{}
	stats      counters

	files    atomic.Uint32 // numbers of files
	waiting  atomic.Int32  // len(waiters)
	cleaned  atomic.Int64  // clean blocks in tables
	hand     atomic.Uint64 // where the next search for a clean block begins
	errands  atomic.Bool   // leaving or forget hold something
	maxCost  atomic.Int64  // what ristretto was told last
	stopping atomic.Bool   // Close has begun
	turn     atomic.Uint32 // counts how often recent was filled anew

	mu           sync.Mutex
	free         []*block  // guarded by mu; the last freed is the first taken
	unclean      int       // guarded by mu; unclean blocks, and rights to make one
	waiters      []*waiter // guarded by mu; writers, first come first served
	recent       queue     // guarded by mu; rows that became clean or changed last, in this order
	recentBlocks int       // guarded by mu; clean blocks in it
	passed       int       // guarded by mu; clean blocks that have left it so far
	leaving      []*row    // guarded by mu; came out of recent, to be given to ristretto
	forget       []uint64  // guarded by mu; keys that ristretto is to forget
	closed       bool      // guarded by mu
}

// New returns a store, to be closed.
func New(o Options) (*Store, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	size := int64(o.BlockSize)
	n := int(o.Bytes / size)
	memory, err := o.memory(n * o.BlockSize)
	if err != nil {
		return nil, fmt.Errorf("cache of %d bytes: %w", o.Bytes, err)
	}
	s := &Store{
		size: size, blocks: make([]block, n), memory: memory, region: o.Memory, zeros: make([]byte, size),
		perRow: rowOf(n), maxUnclean: int(o.MaxDirty / size), keep: max(1, n/freeShare), recentRoom: max(1, n/recentShare),
		pressure: make(chan struct{}, 1), free: make([]*block, 0, n),
	}
	for i := n - 1; i >= 0; i-- {
		b := &s.blocks[i]
		b.mem = memory[i*o.BlockSize : (i+1)*o.BlockSize : (i+1)*o.BlockSize]
		s.free = append(s.free, b)
	}
	if err := s.newPolicy(n); err != nil {
		return nil, errors.Join(err, s.freeMemory())
	}
	return s, nil
}

// Close ends the store. Its files must have been closed, and no call to the
// store or to one of them may be on its way or come later. Views may outlive
// it: the memory goes when the last is released.
func (s *Store) Close() {
	s.stopping.Store(true)
	s.policy.Close()
	s.mu.Lock()
	s.closed = true
	s.unmapLocked()
	s.mu.Unlock()
}

// unmapLocked gives the memory back once the store is closed and unused.
func (s *Store) unmapLocked() {
	if !s.closed || len(s.free) < len(s.blocks) || s.memory == nil {
		return
	}
	if err := s.freeMemory(); err != nil {
		panic(fmt.Sprintf("cache: memory of a closed store: %v", err)) // only our own mistake can make it fail
	}
	s.memory = nil
}

// take takes up to len(dst) blocks for clean bytes. Ristretto leaves some free, but
// views may hold them all; then clean ones that nobody holds give way.
func (s *Store) take(dst []*block) int {
	n := s.takeFree(dst)
	if n < len(dst) && s.reclaim(len(dst)-n) {
		n += s.takeFree(dst[n:])
	}
	return n
}

// takeFree takes up to len(dst) free blocks, as many as there are.
func (s *Store) takeFree(dst []*block) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiters) > 0 {
		return 0 // what is dirty comes first
	}
	return s.takeLocked(dst)
}

func (s *Store) takeLocked(dst []*block) int {
	n := min(len(dst), len(s.free))
	for i := range n {
		last := len(s.free) - 1
		b := s.free[last]
		s.free = s.free[:last]
		b.refs.Store(1)
		dst[i] = b
	}
	return n
}

// unref ends one holding of each of the blocks.
func (s *Store) unref(blocks []*block) {
	for _, b := range blocks {
		switch n := b.refs.Add(-1); {
		case n < 0:
			panic("cache: block released more often than held")
		case n == 0:
			s.freed(b)
		case n == 1 && s.waiting.Load() > 0:
			s.wake() // if it is clean, the hand can take it now
		}
	}
}

// freed puts a block that nobody holds on the free list.
func (s *Store) freed(b *block) {
	if poisoned {
		b.mem[0] = 0xdb
		for n := 1; n < len(b.mem); n *= 2 { // in strides, which the race detector notes as one
			copy(b.mem[n:], b.mem[:n])
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = append(s.free, b)
	s.wakeLocked()
	s.unmapLocked()
}
