// What each packed form is expected to take for a weight, before any of them is timed.
#pragma once

#include <string>
#include <vector>

#include "kernels/packing.h"

namespace openwork {

struct Outlook {
  Form form;
  double work = 0.0;   // for each row, a dense product of these sizes taking 1
  std::string reason;  // why the form does not hold the weight; empty where it does
};

// Of each of the forms, with its own runs of one weight, as PackedWeights::pack() takes it. Counted on the first span of output
// channels where there are no groups: the packer orders each span by itself. Throws std::invalid_argument as pack() does.
std::vector<Outlook> outlook(const std::vector<WeightShape>& shapes, Type type, const void* weight, const std::vector<Form>& forms,
                             const KernelTable& table);

}  // namespace openwork
