package experiment

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Names of files in the directory of results.
const (
	fileSpec        = "experiment.yaml"
	fileEnvironment = "environment.json"
	fileRuns        = "runs.jsonl"
	fileResults     = "results.json"
	fileCSV         = "results.csv"
	fileSummary     = "summary.csv"
	fileLock        = ".lock"
	dirHistories    = "histories"
)

// Store is a directory of results. Runs are appended to one file, each when it
// has been made, so that an end at any moment loses at most the one under way.
type Store struct {
	dir  string
	lock *os.File // held while the store is written to, nil otherwise
}

// Results is all that a Store has.
type Results struct {
	Spec        Spec        `json:"experiment"`
	Environment Environment `json:"environment"`
	Groups      []Group     `json:"summary"`
	Runs        []Run       `json:"runs"` // the last of each ID
	Text        string      `json:"-"`    // of the file of the experiment
}

// Create returns the store in dir for the experiment whose file has the given
// text: a new one, or the one that is there, if it is of the same text. It is
// the caller's alone until Close.
func Create(dir string, text []byte, env Environment) (*Store, error) {
	if err := os.MkdirAll(filepath.Join(dir, dirHistories), 0o755); err != nil {
		return nil, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{dir, lock}
	if err := s.begin(text, env); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// lockDir returns an open file whose lock keeps others from writing to dir.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, fileLock), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("another zoidfs experiment run is at work in %s", dir)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Close lets others write to the store.
func (s *Store) Close() error { return s.lock.Close() }

// begin makes a new store of a directory, or sees to it that the one that is
// there is of the same text, and whole.
func (s *Store) begin(text []byte, env Environment) error {
	old, err := os.ReadFile(s.path(fileSpec))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		b, err := json.MarshalIndent(env, "", "  ")
		if err != nil {
			return err
		}
		return errors.Join(os.WriteFile(s.path(fileEnvironment), append(b, '\n'), 0o644), replace(s.path(fileSpec), text))
	case err != nil:
		return err
	case !bytes.Equal(old, text):
		return fmt.Errorf("%s has results of another version of this file (%s); choose another --out", s.dir, s.path(fileSpec))
	}
	return s.trim()
}

// replace writes a file in one step.
func replace(name string, b []byte) error {
	if err := os.WriteFile(name+".tmp", b, 0o644); err != nil {
		return err
	}
	return os.Rename(name+".tmp", name)
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

// History is the name of the file for the history of a run.
func (s *Store) History(id string) string {
	return filepath.Join(s.dir, dirHistories, id+".jsonl.gz")
}

// trim takes away a last line that was not written to its end.
func (s *Store) trim() error {
	b, err := os.ReadFile(s.path(fileRuns))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Truncate(s.path(fileRuns), int64(bytes.LastIndexByte(b, '\n')+1))
}

// Append adds a run.
func (s *Store) Append(r Run) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(s.path(fileRuns), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	return errors.Join(err, f.Sync(), f.Close())
}

// Runs returns all runs in the order in which they were made.
func (s *Store) Runs() ([]Run, error) {
	b, err := os.ReadFile(s.path(fileRuns))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Run
	for i, line := range bytes.Split(bytes.TrimSpace(b), []byte("\n")) {
		if len(line) == 0 {
			continue
		}
		var r Run
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", s.path(fileRuns), i+1, err)
		}
		out = append(out, r)
	}
	return out, nil
}

// Open reads what the store in dir has.
func Open(dir string) (*Results, error) {
	s := &Store{dir: dir}
	text, err := os.ReadFile(s.path(fileSpec))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no results of an experiment; make them with: zoidfs experiment run FILE --out %s", dir, dir)
	}
	if err != nil {
		return nil, err
	}
	spec, err := Parse(s.path(fileSpec), text)
	if err != nil {
		return nil, err
	}
	r := &Results{Spec: *spec, Text: string(text)}
	b, err := os.ReadFile(s.path(fileEnvironment))
	if err == nil {
		err = json.Unmarshal(b, &r.Environment)
	}
	if err != nil {
		return nil, err
	}
	if file := r.Environment.File; file != "" {
		title := r.Spec.Title == r.Spec.Name
		r.Spec.Name = baseName(file)
		if title {
			r.Spec.Title = r.Spec.Name
		}
	}
	runs, err := s.Runs()
	if err != nil {
		return nil, err
	}
	r.Runs = Latest(runs)
	r.Groups = Summarize(r.Runs)
	return r, nil
}

// Export writes results as JSON and CSV beside the runs.
func (s *Store) Export() error {
	r, err := Open(s.dir)
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return errors.Join(replace(s.path(fileResults), append(b, '\n')), s.table(fileCSV, runRows(r)), s.table(fileSummary, summaryRows(r)))
}

func (s *Store) table(name string, rows [][]string) error {
	var b bytes.Buffer
	if err := csv.NewWriter(&b).WriteAll(rows); err != nil {
		return err
	}
	return replace(s.path(name), b.Bytes())
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }

// factorValues are the values of all factors; the transfer size in bytes.
func factorValues(c Cell) (out []string) {
	for _, f := range Factors() {
		if f == FactorTransfer {
			out = append(out, strconv.FormatInt(c.Transfer, 10))
			continue
		}
		out = append(out, c.Value(f))
	}
	return out
}

// runRows has a line for each phase of each run.
func runRows(r *Results) [][]string {
	rows := [][]string{append(Factors(), strings.Fields("repetition order phase seconds ops bytes figure unit latency_max_s calls rpc pvfs bytes_fetched bytes_stored verified wrong events violations error")...)}
	for _, run := range r.Runs {
		phases := run.Phases
		if len(phases) == 0 {
			phases = []Phase{{}}
		}
		for _, p := range phases {
			longest := int64(0)
			for _, h := range p.Latency {
				longest = max(longest, h.Max)
			}
			q := p.Requests
			rows = append(rows, append(factorValues(run.Cell), strconv.Itoa(run.Repetition), strconv.Itoa(run.Order), p.Name, number(p.Seconds),
				strconv.FormatInt(p.Ops, 10), strconv.FormatInt(p.Bytes, 10), number(p.Figure), p.Unit, number(float64(longest)/1e9),
				strconv.FormatUint(Sum(q.Calls), 10), strconv.FormatUint(Sum(q.RPC), 10), strconv.FormatUint(Sum(q.PVFS), 10),
				strconv.FormatUint(q.Fetched, 10), strconv.FormatUint(q.Stored, 10), strconv.FormatInt(run.Check.Bytes, 10),
				strconv.FormatInt(run.Check.Wrong, 10), strconv.Itoa(run.Check.Events), strconv.Itoa(len(run.Check.Violations)), run.Error))
		}
	}
	return rows
}

// summaryRows has a line for each phase of each cell.
func summaryRows(r *Results) [][]string {
	rows := [][]string{append(Factors(), strings.Fields("phase n unit median low high coverage ratio ratio_low ratio_high calls rpc pvfs staleness_p50_s staleness_p99_s")...)}
	for _, g := range r.Groups {
		rows = append(rows, append(factorValues(g.Cell), g.Phase, strconv.Itoa(g.Figure.N), g.Unit, number(g.Figure.Median), number(g.Figure.Low), number(g.Figure.High),
			number(g.Figure.Coverage), number(g.Ratio.Median), number(g.Ratio.Low), number(g.Ratio.High), number(g.Calls.Median), number(g.RPC.Median),
			number(g.PVFS.Median), number(Quantile(g.Staleness, 0.5)), number(Quantile(g.Staleness, 0.99))))
	}
	return rows
}
