"""Words of the field, errors, schedules, rates, small files and logs. Imports nothing else of the gateway."""
