package work

import (
	"bytes"
	"hash/fnv"

	"github.com/zoidfs/zoidfs/internal/history"
)

// period is after how many bytes the code of one file repeats. It is prime, so
// that bytes which come to lie at a wrong multiple of a block show up.
const period = 65521

// Code says what the bytes of a file are: the byte of write v, from 1 to 255, at
// an offset is 1 plus the sum of v-1 and a hash of file and offset, modulo 255.
// A byte that is 0 was never written.
type Code struct {
	base  int64
	shift []byte        // of each place in the period, less than 255
	rows  map[uint8]row // by value
}

// row has the bytes of one write, for two periods so that they need not be
// wrapped.
type row []byte

// NewCode returns the code of the file called name.
func NewCode(seed int64, name string) *Code {
	h := fnv.New64a()
	h.Write([]byte(name))
	c := &Code{base: int64(h.Sum64()>>1) % period, shift: make([]byte, period), rows: map[uint8]row{}}
	x := uint64(seed)
	for i := range c.shift {
		x += 0x9e3779b97f4a7c15 // splitmix64
		z := (x ^ x>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		c.shift[i] = byte((z ^ z>>31) % 255)
	}
	return c
}

func (c *Code) row(value uint8) row {
	if r := c.rows[value]; r != nil {
		return r
	}
	r := make(row, 2*period)
	for i := range r {
		r[i] = byte(1 + (int(value)-1+int(c.shift[i%period]))%255)
	}
	c.rows[value] = r
	return r
}

// at calls f with pieces of b and what write value would have put there.
func (c *Code) at(b []byte, off int64, value uint8, f func(b, want []byte)) {
	r := c.row(value)
	for len(b) > 0 {
		want := r[(off+c.base)%period:]
		n := min(len(b), len(want))
		f(b[:n], want[:n])
		b, off = b[n:], off+int64(n)
	}
}

// Fill makes b what write value puts at off.
func (c *Code) Fill(b []byte, off int64, value uint8) {
	c.at(b, off, value, func(b, want []byte) { copy(b, want) })
}

// Wrong returns how many bytes of b are not what write value puts at off.
func (c *Code) Wrong(b []byte, off int64, value uint8) (wrong int64) {
	c.at(b, off, value, func(b, want []byte) {
		if bytes.Equal(b, want) {
			return
		}
		for i := range b {
			if b[i] != want[i] {
				wrong++
			}
		}
	})
	return wrong
}

// maxRuns bounds what a read of noise is decoded to.
const maxRuns = 200

// Decode tells which writes the bytes b read at off come from.
func (c *Code) Decode(b []byte, off int64) (runs []history.Run) {
	for i, got := range b {
		v := uint8(0)
		if got != 0 {
			v = uint8(1 + (int(got)-1+255-int(c.shift[(off+int64(i)+c.base)%period]))%255)
		}
		if n := len(runs); n > 0 && (runs[n-1].Value == v || n == maxRuns) {
			runs[n-1].Len++ // of the last of too many it does not matter what it is said to be
		} else {
			runs = append(runs, history.Run{Len: 1, Value: v})
		}
	}
	return runs
}
