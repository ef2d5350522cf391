package fleet

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/confine-dev/confine/api/v1alpha1"
)

// Picker finds the node of a fleet that a person should look at first, keeping
// one ProfileNode in memory. Make one with NewPicker.
type Picker struct {
	key   types.NamespacedName
	worst *v1alpha1.ProfileNode
	rank  int
	tally map[string]int
	total int
}

// NewPicker returns a Picker for one profile.
func NewPicker(key types.NamespacedName) *Picker {
	return &Picker{key: key, tally: map[string]int{}}
}

// Add takes one node into account. Of equally bad nodes the first stays.
func (p *Picker) Add(n *v1alpha1.ProfileNode) {
	share, ok := ShareOf(n, p.key)
	if !ok {
		return
	}
	p.total++
	word := share.State
	if share.Reason != "" {
		word = share.Reason
	}
	p.tally[word]++
	if p.worst == nil || share.rank() < p.rank {
		p.worst, p.rank = n.DeepCopy(), share.rank() // a pointer would keep its whole page
	}
}

// Worst is the node to look at; nil where no node has to do with the profile.
func (p *Picker) Worst() *v1alpha1.ProfileNode { return p.worst }

// Others says in a few words how the nodes are.
func (p *Picker) Others() string {
	if p.total < 2 {
		return ""
	}
	parts := make([]string, 0, len(p.tally))
	for _, word := range slices.Sorted(maps.Keys(p.tally)) {
		parts = append(parts, fmt.Sprintf("%d %s", p.tally[word], word))
	}
	return fmt.Sprintf("of %d nodes: %s", p.total, strings.Join(parts, ", "))
}
