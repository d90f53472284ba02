// Which values are written over one that ends with the step that makes them.
#pragma once

#include <vector>

#include "runtime/program.h"

namespace openwork {

// Where the values of a program lie, whose inputs and outputs are known and whose views and pieces have their homes. Of the pairs
// that a step may write in place those share one whose first value nothing reads or writes afterwards: neither itself, nor by a
// view, nor in a piece of its rows. Both have the same shape and bytes as wide, no rows that lie apart, and no memory that the
// caller has: an input must not be written, and behind a slice of an output another thread writes.
std::vector<Home> put_in_place(const Program& program, std::vector<Home> homes);

}  // namespace openwork
