"""Operations behind the control API, one module a command; they run on trio."""
