// Which values share a place: views with what they are views of, pieces with the value whose rows they are parts of, and what a
// step writes in place with what it reads there for the last time.
#pragma once

#include <vector>

#include "runtime/program.h"

namespace openwork {

// Of every value of a program whose inputs and outputs are known.
std::vector<Home> find_homes(const Program& program);

}  // namespace openwork
