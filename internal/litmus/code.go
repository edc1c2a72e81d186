package litmus

import "github.com/zoidfs/zoidfs/internal/history"

// Every byte of a write says which write it is of and, so that bytes which come
// to lie at a wrong offset show up, where it belongs: it is 1 plus the id and a
// hash of its offset modulo 255. A byte that is 0 was never written. In files
// to which records are appended the offset is unknown, and the byte is the id.

// shift is the hash of an offset.
func shift(off int64, flat bool) int {
	if flat {
		return 0
	}
	return int(uint32(off)*2654435761>>20) % 255
}

// encode fills b with the bytes of write value at off.
func encode(b []byte, off int64, value uint8, flat bool) {
	for i := range b {
		b[i] = byte(1 + (int(value)-1+shift(off+int64(i), flat))%255)
	}
}

// decode tells which writes the bytes b read at off come from.
func decode(b []byte, off int64, flat bool) (runs []history.Run) {
	for i, c := range b {
		v := uint8(0)
		if c != 0 {
			v = uint8(1 + (int(c)-1+255-shift(off+int64(i), flat))%255)
		}
		if n := len(runs); n > 0 && runs[n-1].Value == v {
			runs[n-1].Len++
		} else if n < maxRuns {
			runs = append(runs, history.Run{Len: 1, Value: v})
		} else {
			runs[n-1].Len++ // noise: what the last run is said to be does not matter
		}
	}
	return runs
}

// maxRuns bounds what a read of noise is answered with.
const maxRuns = 1000
