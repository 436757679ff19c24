/** A number that a visitor chooses; what is not in range is not taken. */

interface NumberFieldProps {
  readonly label: string;
  readonly value: number;
  readonly min: number;
  readonly max: number;
  readonly step?: number | "any";
  readonly onValue: (value: number) => void;
}

export function NumberField({ label, value, min, max, step = 1, onValue }: NumberFieldProps) {
  return (
    <label class="field">
      {label}
      <input
        type="number"
        {...{ min, max, step }}
        value={value}
        onChange={({ currentTarget }) => {
          if (currentTarget.value !== "" && currentTarget.validity.valid) onValue(currentTarget.valueAsNumber);
          else currentTarget.value = String(value);
        }}
      />
    </label>
  );
}
