package seccomp

import (
	"maps"
	"slices"
)

// knows reports whether the name is a syscall to the tables or to libseccomp.
func (k *Kind) knows(name string) bool {
	return theBaseline().known(name) || (k.resolver != nil && k.resolver.Resolves(name))
}

// hint says what an unknown name may have meant; empty for known ones.
func (k *Kind) hint(name string) string {
	if k.knows(name) {
		return ""
	}
	return " (unknown syscall" + k.meant(name) + ")"
}

// meant names the nearest known syscall, where one is near.
func (k *Kind) meant(name string) string {
	b := theBaseline()
	best, least := "", 1+min(3, max(1, len(name)/2))
	for _, known := range slices.Sorted(maps.Keys(b.tables)) {
		if d := distance(name, known, least); d < least {
			best, least = known, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// distance is the number of edits from a to b (Levenshtein), or at least
// limit where it is not smaller.
func distance(a, b string, limit int) int {
	if abs(len(a)-len(b)) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func abs(n int) int { return max(n, -n) }
