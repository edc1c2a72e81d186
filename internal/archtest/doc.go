// Package archtest holds the tests that keep the rooms apart: who may import
// whom, where each large dependency may appear, and that every package says
// what it is for. It has no code of its own.
package archtest
