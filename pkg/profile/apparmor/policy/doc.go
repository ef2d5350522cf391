// Package policy reads AppArmor policy text without trusting it: the language
// of apparmor.d(5) as the parsers 3 and 4 understand it, less whatever two
// readers could understand differently.
//
// The reader is stricter than apparmor_parser on purpose. The parser's scanner
// changes its rules from word to word, takes the longest match, and decodes
// escapes late; a text that is read here in one way and there in another is how
// a policy escapes review. So what is odd is refused with its position, never
// skipped: a brace glued to a word, octal escapes, a quote within a word, a
// comma that ends a rule and touches the next, comments inside a rule, blocks
// with a prefix, control and invisible characters.
//
// Files that a text includes are never opened: an include is only recorded.
package policy

// Bounds of what is read. A text beyond one of them is refused.
const (
	MaxBytes     = 1 << 20 // of one text
	MaxWordBytes = 4096    // of one path, name or value
	MaxDepth     = 8       // of profiles and conditions within each other
	MaxProfiles  = 512     // children and hats included
	MaxRules     = 20_000  // in all profiles of a text together
	MaxVariables = 1024    // assignments
	MaxValues    = 512     // of one assignment, list or rule
	MaxIncludes  = 1024    // includes and abi statements
)
