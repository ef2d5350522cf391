package rollout

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/intstr"
)

// turn is one node's place in the order of a profile.
type turn struct {
	hash  uint64
	index int
}

// inTurn sorts indices of nodes by sha256 of profile and node, so that each
// profile begins with other nodes and no restart changes the order. It also
// returns the indices of equal hashes by name.
func inTurn(uid string, nodes []Node, indices []int) []int {
	turns := make([]turn, len(indices))
	buffer := make([]byte, 0, len(uid)+64)
	for i, index := range indices {
		buffer = append(append(append(buffer[:0], uid...), 0), nodes[index].Name...)
		sum := sha256.Sum256(buffer)
		turns[i] = turn{hash: binary.BigEndian.Uint64(sum[:]), index: index}
	}
	slices.SortFunc(turns, func(a, b turn) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), strings.Compare(nodes[a.index].Name, nodes[b.index].Name))
	})
	sorted := make([]int, len(turns))
	for i, t := range turns {
		sorted[i] = t.index
	}
	return sorted
}

// share resolves a number or a percentage of all, rounded up, to at least 1.
// What is absent or cannot be read is the default, or 1 where that is empty.
func share(value *intstr.IntOrString, fallback string, all int) int {
	if value != nil {
		if value.Type == intstr.Int {
			return max(1, int(value.IntVal))
		}
		if percent, ok := percentage(value.StrVal); ok {
			return portion(percent, all)
		}
	}
	percent, _ := percentage(fallback)
	return portion(percent, all)
}

func portion(percent, all int) int {
	return max(1, int(math.Ceil(float64(percent)*float64(all)/100)))
}

func percentage(text string) (int, bool) {
	number, ok := strings.CutSuffix(text, "%")
	percent, err := strconv.Atoi(number)
	return percent, ok && err == nil && percent >= 0 && percent <= 100
}
