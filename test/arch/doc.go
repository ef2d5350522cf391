// Package arch holds the rules that every package of Confine keeps, as tests:
// who may import whom, that no code branches on a kind of profile where kinds
// are treated alike, that nothing is insecure by default, and how long files
// and functions may be.
//
// A rule is a function from a Tree to what breaks it. Each is run on the whole
// module, and on a small bad tree that it must object to: a rule that cannot
// fail is worth nothing.
package arch
