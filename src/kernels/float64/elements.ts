/**
 * Reading and adding to single elements, for the float64 twin. An index outside the array throws instead of
 * turning into NaN: the twin is an oracle, and an oracle that reads out of bounds must not answer. The innermost
 * loops of matmul and the head read directly, within lengths that follow from their shapes.
 */

/** Element `index`; throws RangeError outside the array. */
export function at(values: Float64Array, index: number): number {
  const value = values[index];
  if (value === undefined) throw new RangeError(`Element ${index} of an array of ${values.length} was read.`);
  return value;
}

/** Adds `amount` to element `index`; throws RangeError outside the array. */
export function add(values: Float64Array, index: number, amount: number): void {
  values[index] = at(values, index) + amount;
}

/** Token id, row number or position `index`; throws RangeError outside the array. */
export function idAt(ids: ArrayLike<number>, index: number): number {
  const id = ids[index];
  if (id === undefined) throw new RangeError(`Entry ${index} of a list of ${ids.length} was read.`);
  return id;
}
