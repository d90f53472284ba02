// Arrays of Python as the types that the native part takes. Type, rank and order stand in the parameter types.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <optional>

#include "runtime/buffer.h"
#include "runtime/program.h"

namespace openwork::bind {

namespace nb = nanobind;

template <class T, int rank>
using Array = nb::ndarray<const T, nb::ndim<rank>, nb::c_contig, nb::device::cpu>;
using Bytes1 = Array<uint8_t, 1>;
using Floats1 = Array<float, 1>;
using Floats2 = Array<float, 2>;
using AnyArray = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;

template <class A>
std::vector<int64_t> shape_of(const A& array) {
  std::vector<int64_t> shape;
  for (size_t i = 0; i < array.ndim(); ++i) shape.push_back(static_cast<int64_t>(array.shape(i)));
  return shape;
}

// Borrows the array's memory and keeps the array alive.
template <class A>
FloatTensor tensor(const A& array) {
  const std::shared_ptr<const void> owner(new A(array), [](const void* p) {
    const nb::gil_scoped_acquire gil;
    delete static_cast<const A*>(p);
  });
  return {array.data(), shape_of(array), owner};
}
template <class A>
FloatTensor tensor(const std::optional<A>& array) {
  return array ? tensor(*array) : FloatTensor{};
}

// A new NumPy array that owns the buffer.
nb::object to_numpy(AlignedBuffer buffer, DType dtype, const std::vector<int64_t>& shape);
// BF16 comes as uint16.
nb::object to_numpy(AlignedBuffer buffer, Stored type, const std::vector<int64_t>& shape);

void bind_program(nb::module_& m);
void bind_linear(nb::module_& m);
void bind_peak(nb::module_& m);
void bind_convolution(nb::module_& m);

}  // namespace openwork::bind
