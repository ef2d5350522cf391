// Package controller assigns digests to nodes in waves, aggregates what nodes
// report, and releases what no pod uses any more.
//
// One loop writes everything: it computes all profiles and nodes from caches,
// and writes what differs. So several profiles that change together cost one
// write per node, and what was decided about one profile never races with
// another. It contacts no registry, and writes no spec that a person owns.
package controller
