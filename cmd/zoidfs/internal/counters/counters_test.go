package counters

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

func sample() Stats {
	s := New()
	s.App.Calls["write"], s.App.Calls["read"], s.App.BytesWritten = 10, 2, 4096
	s.RPC.Requests["write"], s.RPC.BytesSent = 10, 5000
	s.PVFS.Requests["small_io"], s.PVFS.Requests["io"], s.PVFS.BytesWritten = 9, 3, 4096
	return s
}

func TestAddAndSub(t *testing.T) {
	a, b := sample(), sample()
	b.App.Calls["open"] = 1
	sum := a.Add(b)
	require.Equal(t, uint64(20), sum.App.Calls["write"])
	require.Equal(t, uint64(1), sum.App.Calls["open"])
	require.Equal(t, uint64(8192), sum.PVFS.BytesWritten)
	require.Equal(t, sample(), a, "the operands stay as they are")

	diff := sum.Sub(b)
	require.Equal(t, uint64(10), diff.App.Calls["write"])
	require.Zero(t, diff.App.Calls["open"])

	after := New()
	after.App.Calls["write"] = 3
	require.Equal(t, uint64(3), after.Sub(a).App.Calls["write"], "counting began anew in between")
}

func TestJSONHasTheShapeThatScriptsReadOn(t *testing.T) {
	b, err := json.Marshal(New())
	require.NoError(t, err)
	require.JSONEq(t, `{
		"app":  {"calls": {}, "bytes_read": 0, "bytes_written": 0},
		"rpc":  {"requests": {}, "bytes_sent": 0, "bytes_received": 0},
		"pvfs": {"requests": {}, "bytes_read": 0, "bytes_written": 0}}`, string(b))
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, sample().Table(&out))
	require.Regexp(t, `(?s)calls from applications +12 +read 0 B +written 4\.0 KiB.*`+
		`write +10.*read +2.*requests to I/O nodes +10.*requests to PVFS2 servers +12.*small_io +9.*io +3.*`+
		`for each call +0\.83 +requests to I/O nodes.*1\.00 +requests to PVFS2 servers`, out.String())
}

func TestBytes(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 64 << 20: "64.0 MiB", 1<<64 - 1: "16.0 EiB"} {
		require.Equal(t, want, Bytes(n))
	}
}

func TestCollector(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	require.NoError(t, reg.Register(NewCollector(sample)))
	families, err := reg.Gather()
	require.NoError(t, err)
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			values[f.GetName()+"/"+m.Label[0].GetValue()] = m.Counter.GetValue()
		}
	}
	require.Equal(t, 10.0, values["zoidfs_app_calls_total/write"])
	require.Equal(t, 9.0, values["zoidfs_pvfs_requests_total/small_io"])
	require.Equal(t, 4096.0, values["zoidfs_pvfs_bytes_total/written"])
	require.Equal(t, 5000.0, values["zoidfs_rpc_bytes_total/sent"])
}
