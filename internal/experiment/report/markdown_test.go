package report

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMarkdown: the tables say what was measured, every row has a cell for each
// column, and a document is brought up to date between its two lines only.
func TestMarkdown(t *testing.T) {
	r := sample(t)
	r.Spec.Name = "x"
	text := string(Markdown(r))
	for _, part := range []string{
		"- ckpt: write at 4 KiB: session, dies does 2× as well as strong.\n",
		"| workload | transfer size | fault | mode | median [interval] | speed-up over strong | calls | to I/O nodes | to servers |\n",
		"| ckpt: write | 64 KiB | none | session | 24 [20, 28] MiB/s | 2× | 100 | 10 | 0 |\n",
		"| exchange | 4 KiB | none | eventual | 15 | 1 ms | 2 ms | 2 ms | 2 ms |\n",
		"| dies | ckpt | session | 10 |",
		"the interval that covers the median with at least 94 %",
	} {
		require.Contains(t, text, part)
	}
	columns := 0
	for line := range strings.Lines(text) {
		n := strings.Count(line, "|")
		if columns > 0 && n > 0 {
			require.Equal(t, columns, n, line)
		}
		columns = n
	}

	doc := NewDocument(r)
	require.Contains(t, string(doc), "# Modes & <others>\n")
	pictured := append([]byte("![a plot](img/x-result-ckpt--write.svg) ![other](img/y-result-ckpt--write.svg)\n"), doc...)
	once, err := PutInto(pictured, r)
	require.NoError(t, err)
	require.Contains(t, string(once), text)
	twice, err := PutInto(append(once, "more\n"...), r)
	require.NoError(t, err)
	require.Equal(t, string(once)+"more\n", string(twice))
	_, err = PutInto([]byte("# nothing"), r)
	require.ErrorContains(t, err, "between two lines")

	pictures, err := Pictures(once, r)
	require.NoError(t, err)
	require.Len(t, pictures, 1)
	require.Contains(t, string(pictures["img/x-result-ckpt--write.svg"]), "<svg")
}
