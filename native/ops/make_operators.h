// The operators of one instruction set from its vocabulary V. Included only by the instruction sets' own translation units; those of
// the products (kernels/) are others, so that a change here does not compile the products anew.
#pragma once

#include "kernels/peak.h"
#include "ops/operators.h"
#include "ops/table.h"

namespace openwork {

template <class V>
constexpr OperatorTable make_operators() {
  return OperatorTable{
#define OPENWORK_OP(op, Arguments) ops::op<V>,
#include "kernels/table.inc"
#undef OPENWORK_OP
  };
}

}  // namespace openwork
