package collective

const (
	// FlowSize is how many bytes of a file one request takes to one server, where
	// there are as many, and LongFlow the most. A flow costs a server the same few
	// messages and buffers whatever its length: the first is long enough to make little
	// of them; long ones save OrangeFS another sixth of its time for a byte.
	FlowSize = 4 << 20
	LongFlow = 4 * FlowSize
)

// Flows is how many bytes of a file an I/O node moves at a time: Least begins to be
// worth it, Most is the most.
type Flows struct{ Least, Most int64 }

// FlowsOf is for a file of so many servers: flows to all of them or, where the hint
// cb_buffer_size says how many, whole domains; in any case no more of the memory than can
// be spared.
func FlowsOf(servers int, h Hints, domain, memory int64) Flows {
	all := int64(servers) * FlowSize
	f := Flows{Least: min(h.Round(all, domain), memory/8), Most: min(all*(LongFlow/FlowSize), memory/8)}
	if h.CBBufferSize > 0 {
		f.Most = f.Least
	}
	return f
}

// Enough is how many bytes of whole domains begin a round of writing back: as many
// as were written back since nothing was unstable, so that the flows of a long stream
// become long, and a short one is on its way soon.
func (f Flows) Enough(streamed int64) int64 { return min(max(f.Least, streamed), f.Most) }
