package consistency

import (
	"strconv"
	"strings"
)

// Auto returns the mode of files whose name tells that they are not data but
// means by which the ranks of a program come to an agreement, whatever was
// chosen for them. Those are the files that MPI libraries make beside a file
// that was opened with MPI_File_open, and they are always Strong:
//
//	.NAME.shfp.NUMBER[.NUMBER]   shared file pointer of ROMIO (MPICH, Intel MPI, Open MPI's own copy)
//	NAME-JOB-PID.lock            shared file pointer of OMPIO (Open MPI), component lockedfile
//	NAME.locktest.RANK           OMPIO trying whether fcntl locks work
//
// NAME.data.RANK and NAME.metadata.RANK of OMPIO's component individual are not
// among them: only the rank that made them uses them.
//
// Sources: ROMIO adio/common/shfp_fname.c; Open MPI
// ompi/mca/sharedfp/lockedfile; both as seen with Debian's MPICH 4.0 and Open
// MPI 4.1.
func Auto(name string) (Mode, bool) {
	if romioPointer(name) || ompioPointer(name) || ompioTest(name) {
		return Strong, true
	}
	return Default, false
}

func romioPointer(name string) bool {
	if !strings.HasPrefix(name, ".") {
		return false
	}
	of, numbers, ok := cutLast(name[1:], ".shfp.")
	if !ok || of == "" {
		return false
	}
	first, second, two := strings.Cut(numbers, ".")
	return number(first) && (!two || number(second))
}

func ompioPointer(name string) bool {
	rest, ok := strings.CutSuffix(name, ".lock")
	if !ok {
		return false
	}
	rest, pid, ok := cutLast(rest, "-")
	if !ok || !number(pid) {
		return false
	}
	of, job, ok := cutLast(rest, "-")
	return ok && of != "" && number(job)
}

func ompioTest(name string) bool {
	of, rank, ok := cutLast(name, ".locktest.")
	return ok && of != "" && number(rank)
}

// cutLast cuts s around the last instance of sep.
func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// number reports whether s is a decimal number without sign, as C prints it.
func number(s string) bool {
	n, err := strconv.ParseUint(s, 10, 64)
	return err == nil && strconv.FormatUint(n, 10) == s
}
